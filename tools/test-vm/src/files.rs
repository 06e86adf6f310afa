//! A static file server, as one that updates are fetched from, which can misbehave.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// How it serves the large files, whose names end in `root.erofs` or `boot.efi`. Everything
/// else it serves as it should.
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
    /// Says that they lie on this port.
    MovedTo(u16),
    /// Says so once.
    MovedOnceTo(u16),
    /// Says that they lie where they were asked for.
    MovedHere,
    /// Says that they are to be had without TLS.
    MovedToPlain,
    /// As asked for, so many milliseconds later: it is far away.
    Far(u64),
    /// As asked for, but for the second request, of which only the beginning comes.
    StallsOnce,
    /// Knows ranges in its first answer and in no other.
    WholeLater,
}

/// What was sent of large files.
#[derive(Debug, Default)]
pub struct Sent {
    /// Bytes of roots.
    pub root_bytes: AtomicU64,
    /// Bytes of kernel images.
    pub kernel_bytes: AtomicU64,
    /// Requests that were sent elsewhere.
    pub moved: AtomicU64,
    /// Requests.
    pub requests: AtomicU64,
    /// Requests that wait for their answers.
    pub waiting: AtomicU64,
    /// The most that did at once.
    pub at_once: AtomicU64,
}

/// Serves for ever, each connection by a thread of its own.
pub fn serve(listener: TcpListener, folder: &Path, manner: Manner) {
    serve_over(listener, folder, manner, &Arc::default(), |stream| stream);
}

/// The same, over what `begin` makes of connections, and counts what is sent.
pub fn serve_over<S: Read + Write>(
    listener: TcpListener,
    folder: &Path,
    manner: Manner,
    sent: &Arc<Sent>,
    begin: impl Fn(TcpStream) -> S + Send + Sync + 'static,
) {
    let (folder, sent) = (folder.to_path_buf(), Arc::clone(sent));
    let begin = Arc::new(begin);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (folder, sent) = (folder.clone(), Arc::clone(&sent));
            let begin = Arc::clone(&begin);
            // A client that goes away, or speaks something else, is told nothing.
            thread::spawn(move || answer(begin(stream), &folder, manner, &sent));
        }
    });
}

fn answer(stream: impl Read + Write, folder: &Path, manner: Manner, sent: &Sent) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
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
                let stream = reader.get_mut();
                stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
                stream.flush()?;
                continue;
            }
        };
        let size = file.metadata()?.len();
        let bytes_of = match path.to_string_lossy() {
            name if name.ends_with("root.erofs") => Some(&sent.root_bytes),
            name if name.ends_with("boot.efi") => Some(&sent.kernel_bytes),
            _ => None,
        };
        let manner = match bytes_of {
            Some(_) => manner,
            None => Manner::Ranges,
        };
        let place = match manner {
            Manner::MovedOnceTo(_) if sent.moved.load(Ordering::SeqCst) > 0 => None,
            Manner::MovedTo(port) | Manner::MovedOnceTo(port) => {
                Some(format!("//127.0.0.1:{port}/"))
            }
            Manner::MovedHere => Some("/".to_string()),
            Manner::MovedToPlain => Some("http://127.0.0.1/".to_string()),
            _ => None,
        };
        if let Some(place) = place {
            sent.moved.fetch_add(1, Ordering::SeqCst);
            let stream = reader.get_mut();
            write!(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: {place}{}\r\nContent-Length: 0\r\n\r\n",
                path.display()
            )?;
            stream.flush()?;
            continue;
        }
        let number = match bytes_of {
            Some(_) => sent.requests.fetch_add(1, Ordering::SeqCst),
            None => 0,
        };
        let knows_ranges = match manner {
            Manner::Whole => false,
            Manner::WholeLater => number == 0,
            _ => true,
        };
        let waiting = sent.waiting.fetch_add(1, Ordering::SeqCst) + 1;
        sent.at_once.fetch_max(waiting, Ordering::SeqCst);
        if let Manner::Far(milliseconds) = manner {
            thread::sleep(Duration::from_millis(milliseconds));
        }
        sent.waiting.fetch_sub(1, Ordering::SeqCst);
        let (status, extra, start, length) = match range {
            Some((first, last)) if first <= last && last < size && knows_ranges => {
                let extra = format!("Content-Range: bytes {first}-{last}/{size}\r\n");
                ("206 Partial Content", extra, first, last + 1 - first)
            }
            _ => ("200 OK", String::new(), 0, size),
        };
        let mut body = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        file.read_exact_at(&mut body, start)?;
        let mut is_cut = false;
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
        if let Some(bytes) = bytes_of {
            bytes.fetch_add(body.len() as u64, Ordering::SeqCst);
        }
        let stream = reader.get_mut();
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{extra}\r\n"
        )?;
        if manner == Manner::StallsOnce && number == 1 {
            stream.flush()?;
            // Until the client has hung up.
            let _ = stream.read(&mut [0]);
            return Ok(());
        }
        stream.write_all(&body)?;
        stream.flush()?;
        if is_cut {
            return Ok(());
        }
    }
}
