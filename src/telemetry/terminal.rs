//! One line at the foot of a terminal that is written anew again and again, while log lines go by above it. Both go to standard
//! error through here, so that neither is written into the other.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, PoisonError};

/// Takes away what stands in the line and goes to its beginning.
const CLEAR: &[u8] = b"\r\x1b[2K";

/// What stands in the line.
static LINE: Mutex<String> = Mutex::new(String::new());

/// Whether somebody may be looking.
#[must_use]
pub fn is_there() -> bool {
    io::stderr().is_terminal()
}

/// Shows a line instead of the last one; an empty one leaves nothing.
pub fn show(line: &str) {
    let mut shown = LINE.lock().unwrap_or_else(PoisonError::into_inner);
    if *shown != line {
        line.clone_into(&mut shown);
        // There is nobody to tell that a terminal is gone.
        let _ = io::stderr().write_all(&[CLEAR, line.as_bytes()].concat());
    }
}

/// Where log lines are written: above the line that is shown, if there is one.
pub struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let shown = LINE.lock().unwrap_or_else(PoisonError::into_inner);
        io::stderr().write_all(&above(&shown, bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// A log line, and the shown line again behind it.
fn above<'a>(shown: &str, bytes: &'a [u8]) -> std::borrow::Cow<'a, [u8]> {
    if shown.is_empty() { bytes.into() } else { [CLEAR, bytes, shown.as_bytes()].concat().into() }
}

#[cfg(test)]
mod tests {
    use super::above;

    #[test]
    fn a_log_line_goes_by_above_the_shown_one() {
        assert_eq!(above("", b"log\n").as_ref(), b"log\n");
        assert_eq!(above("shown", b"log\n").as_ref(), b"\r\x1b[2Klog\nshown");
    }
}
