//! The agent: it makes the container runtime of its node follow the node plan.

/// Arguments of `wharf agent`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {}

/// Runs the agent until SIGTERM.
///
/// # Errors
/// Never yet.
#[allow(clippy::unused_async, reason = "replaced by the agent")]
pub async fn run(_: Options) -> std::io::Result<()> {
    Ok(())
}
