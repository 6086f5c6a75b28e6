//! Who has a port, as far as the kernel tells: for the sentence that says what to do. It must never be needed for a decision.

use std::fs;

/// Who listens on a TCP port of this machine, in words.
#[must_use]
pub fn of(port: u16) -> String {
    let mut tables = ["/proc/net/tcp", "/proc/net/tcp6"].into_iter().filter_map(|path| fs::read_to_string(path).ok());
    let Some((uid, inode)) = tables.find_map(|table| listener(&table, port)) else {
        return "another process".to_owned();
    };
    match process(&inode) {
        Some((id, name)) => format!("the process {name} ({id}) of user {uid}"),
        // Processes of other containers are not seen from here.
        None => format!("a process of user {uid}"),
    }
}

/// The user and the inode of the socket that listens on a port, in a table of the kernel.
fn listener(table: &str, port: u16) -> Option<(String, String)> {
    const LISTENING: &str = "0A";
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
        let (_, found) = local.rsplit_once(':')?;
        let matches = state == LISTENING && u16::from_str_radix(found, 16) == Ok(port);
        // Behind the state: queues, timer, retransmits, user, timeout, inode.
        let (user, inode) = (fields.nth(3)?, fields.nth(1)?);
        matches.then(|| (user.to_owned(), inode.to_owned()))
    })
}

fn process(inode: &str) -> Option<(String, String)> {
    let socket = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes.filter(|entry| entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())).find_map(
        |entry| {
            let files = fs::read_dir(entry.path().join("fd")).ok()?.flatten();
            let mut open = files.filter_map(|file| fs::read_link(file.path()).ok());
            open.any(|target| target.as_os_str() == socket.as_str()).then(|| {
                let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
                (entry.file_name().to_string_lossy().into_owned(), name.trim().to_owned())
            })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_by_its_port() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:4423 0100007F:0001 01 00000000:00000000 00:00000000 00000000     7        0 111 1 0\n   \
             1: 0100007F:4423 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 999 1 0\n";
        assert_eq!(listener(table, 17_443), Some(("1000".into(), "999".into())));
        assert_eq!(listener(table, 17_444), None);
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = of(socket.local_addr().unwrap().port());
        assert!(found.contains(&format!("({})", std::process::id())), "{found}");
    }
}
