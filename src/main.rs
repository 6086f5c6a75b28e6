//! The `wharf` program: it parses its arguments and starts what they ask for, nothing else.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use wharf::{agent, api, operator, serve, telemetry, uninstall, volume};

/// Image registries and pull-through mirrors for a Kubernetes cluster.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// How log lines are written.
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: telemetry::LogFormat,
    /// What is logged: a level, or directives such as `wharf=debug,kube=warn`.
    #[arg(long, global = true, default_value = "info")]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reconcile Wharf's resources (runs in the cluster).
    Operator(operator::Options),
    /// Make this node's container runtime follow the node plan (runs on every node).
    Agent(agent::Options),
    /// Delete all Mirrors and wait until the nodes have let go of them (runs in the cluster, before the operator is removed).
    Uninstall(uninstall::Options),
    /// Tell how full a registry's volume is (runs in the registry's pod).
    Volume(volume::Options),
    /// Serve a registry (runs anywhere; no cluster is needed).
    Serve(serve::Options),
    /// Tag what refers to other manifests, for a registry without the referrers API that is to serve the same root.
    TagReferrers(serve::TagReferrersOptions),
    /// Check or describe the configuration of `serve`.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print the custom resource definitions as YAML, or write one file each.
    Crds {
        /// A folder for the files; without it, all are printed.
        #[arg(long)]
        write_to: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Say whether a file can be used, without starting anything.
    Check {
        /// The YAML file.
        file: PathBuf,
    },
    /// Print the JSON Schema of the file.
    Schema,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match start(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log may not be running yet, and a person may be reading.
            eprintln!("wharf: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    match arguments.command {
        Command::Crds { write_to } => print_definitions(write_to.as_deref()),
        Command::Config(command) => configuration(command),
        command => run(command, arguments.log_format, &arguments.log),
    }
}

fn run(command: Command, format: telemetry::LogFormat, filter: &str) -> Result<(), Box<dyn std::error::Error>> {
    telemetry::start_logging(format, filter)?;
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| "another TLS provider is installed already")?;
    if let Command::Serve(options) = command {
        // It hashes, encrypts and reads for many at once.
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        return Ok(runtime.block_on(serve::run(options, format))?);
    }
    // The other processes wait far more than they compute; one thread keeps their memory small.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match command {
        Command::Operator(options) => runtime.block_on(operator::run(options))?,
        Command::Agent(options) if options.worker => runtime.block_on(agent::run(options))?,
        Command::Agent(_) => runtime.block_on(agent::supervisor::run())?,
        Command::Uninstall(options) => runtime.block_on(uninstall::run(options))?,
        Command::Volume(options) => runtime.block_on(volume::run(options))?,
        Command::TagReferrers(options) => runtime.block_on(serve::tag_referrers(options))?,
        Command::Serve(_) | Command::Config(_) | Command::Crds { .. } => {}
    }
    Ok(())
}

fn configuration(command: ConfigCommand) -> Result<(), Box<dyn std::error::Error>> {
    match command {
        ConfigCommand::Check { file } => {
            serve::config::Config::read(&file)?;
            writeln!(std::io::stdout(), "{}: in order", file.display())?;
        }
        ConfigCommand::Schema => {
            writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&serve::config::schema())?)?;
        }
    }
    Ok(())
}

fn print_definitions(folder: Option<&Path>) -> Result<(), Box<dyn std::error::Error>> {
    for (name, yaml) in api::definition_files()? {
        match folder {
            Some(folder) => std::fs::write(folder.join(name), yaml)?,
            None => write!(std::io::stdout(), "---\n{yaml}")?,
        }
    }
    Ok(())
}
