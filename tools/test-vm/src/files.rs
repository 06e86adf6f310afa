//! A static file server, as one that updates are fetched from, which can misbehave.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// How it serves the files whose names end in `root.erofs`. Everything else it serves as
/// it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As asked for.
    Ranges,
    /// Always the whole file.
    Whole,
    /// At most this many bytes, then the connection ends.
    CutAfter(usize),
    /// Other bytes than those that were asked for.
    WrongBytes,
}

/// Serves for ever, each connection by a thread of its own. The bytes of roots that were
/// sent are added to `root_bytes`.
pub fn serve(listener: TcpListener, folder: &Path, manner: Manner, root_bytes: &Arc<AtomicU64>) {
    let (folder, counter) = (folder.to_path_buf(), Arc::clone(root_bytes));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (folder, counter) = (folder.clone(), Arc::clone(&counter));
            // A client that goes away, or speaks something else, is told nothing.
            thread::spawn(move || answer(&stream, &folder, manner, &counter));
        }
    });
}

fn answer(
    mut stream: &TcpStream,
    folder: &Path,
    manner: Manner,
    counter: &AtomicU64,
) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default();
        let path = PathBuf::from(path.trim_start_matches('/'));
        let mut range = None;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            if header.trim().is_empty() {
                break;
            }
            let header = header.to_ascii_lowercase();
            if let Some((first, last)) = (header.strip_prefix("range: bytes="))
                .and_then(|asked| asked.trim().split_once('-'))
            {
                range = first.parse::<u64>().ok().zip(last.parse::<u64>().ok());
            }
        }
        let plain = path
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let file = match File::open(folder.join(&path)) {
            Ok(file) if plain && file.metadata()?.is_file() => file,
            _ => {
                stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
                continue;
            }
        };
        let size = file.metadata()?.len();
        let is_root = path.to_string_lossy().ends_with("root.erofs");
        let (status, extra, start, length) = match range {
            Some((first, last))
                if first <= last && last < size && !(is_root && manner == Manner::Whole) =>
            {
                let extra = format!("Content-Range: bytes {first}-{last}/{size}\r\n");
                ("206 Partial Content", extra, first, last + 1 - first)
            }
            _ => ("200 OK", String::new(), 0, size),
        };
        let mut body = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut body, start)?;
        let mut is_cut = false;
        if is_root {
            match manner {
                Manner::CutAfter(most) if most < body.len() => {
                    body.truncate(most);
                    is_cut = true;
                }
                Manner::WrongBytes => {
                    let middle = body.len() / 2;
                    body[middle] ^= 1;
                }
                _ => {}
            }
            counter.fetch_add(body.len() as u64, Ordering::SeqCst);
        }
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{extra}\r\n"
        )?;
        stream.write_all(&body)?;
        if is_cut {
            return Ok(());
        }
    }
}
