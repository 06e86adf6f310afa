//! Servers that drip, and disks that do not take or give what they should.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use api_types::UpdateCommand::{Prepare, Refresh};
use api_types::UpdateState;
use boot_slots::layout::{Role, Slot};
use boot_slots::verity::BLOCK_SIZE;
use test_vm::files::Manner;
use updater::slot::Disk;

use crate::fixture::{Files, Fixture};

/// What a server does with whoever asks.
#[derive(Clone, Copy, Debug)]
enum Drip {
    /// It takes the request and says nothing.
    Nothing,
    /// It never comes to the end of its headers.
    Headers,
    /// A byte of the body at a time.
    Body,
}

fn drip(manner: Drip) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                // The host hangs up in the end.
                let _ = answer(&stream, manner);
            });
        }
    });
    port
}

fn answer(mut stream: &TcpStream, manner: Drip) -> Result<()> {
    for line in BufReader::new(stream.try_clone()?).lines() {
        if line?.is_empty() {
            break;
        }
    }
    match manner {
        Drip::Nothing => {}
        Drip::Headers => stream.write_all(b"HTTP/1.1 200 OK\r\nX-Long: ")?,
        Drip::Body => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n")?,
    }
    loop {
        thread::sleep(Duration::from_millis(50));
        match manner {
            // Until the host has hung up.
            Drip::Nothing => std::io::Read::read_exact(&mut stream, &mut [0])?,
            Drip::Headers | Drip::Body => stream.write_all(b"x")?,
        }
    }
}

#[test]
fn attack_a_server_that_drips() {
    for (manner, says) in [
        (Drip::Nothing, "was silent for"),
        (Drip::Headers, "was silent for"),
        (Drip::Body, "too slow"),
    ] {
        let mut fixture = Fixture::new();
        let silence = Duration::from_secs(1);
        fixture.connector = fixture.connector.with_silence(silence);
        fixture.look_at(&format!("http://127.0.0.1:{}", drip(manner)));
        let started = Instant::now();
        let error = format!("{:#}", fixture.run(Refresh).unwrap().unwrap_err());
        assert!(error.contains(says), "{manner:?}: {error}");
        let took = started.elapsed();
        assert!(took < Duration::from_secs(10), "{manner:?}: {took:?}");
    }
}

/// A disk one of whose partitions is another file.
struct Odd<'a> {
    disk: Files<'a>,
    role: Role,
    file: fn(&Path) -> Result<File>,
}

impl Disk for Odd<'_> {
    fn partition(&self, role: Role) -> Result<File> {
        match role == self.role {
            true => (self.file)(&self.disk.0.join(role.name())),
            false => self.disk.partition(role),
        }
    }

    fn with_esp<T>(&self, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
        self.disk.with_esp(work)
    }
}

/// Whatever is read of it, the kernel answers with EIO.
fn unreadable(_: &Path) -> Result<File> {
    Ok(File::open("/proc/self/mem")?)
}

fn read_only(path: &Path) -> Result<File> {
    Ok(OpenOptions::new().read(true).open(path)?)
}

#[test]
fn a_running_slot_that_cannot_be_read_is_fetched() {
    let fixture = Fixture::new();
    let root = fixture.release("2.0.0", 500..1_100);
    let server = fixture.serve(Manner::Ranges);
    fixture.done(&[Refresh]);
    let disk = fixture.disk();
    let odd = Odd {
        disk: Files(&disk),
        role: Role::Root(Slot::A),
        file: unreadable,
    };
    fixture.run_on(odd, Prepare).unwrap();
    assert!(fixture.slot_b_holds(&root));
    assert_eq!(server.root_bytes(), 600 * BLOCK_SIZE as u64);
}

/// Sees that no update is prepared where `role` of the disk is what `file` opens, and that
/// nothing of it can be booted; the host, and what it complains of.
pub fn cannot_prepare(role: Role, file: fn(&Path) -> Result<File>) -> (Fixture, String) {
    let fixture = Fixture::new();
    fixture.release("2.0.0", 500..1_100);
    let _server = fixture.serve(Manner::Ranges);
    fixture.done(&[Refresh]);
    let disk = fixture.disk();
    let odd = Odd {
        disk: Files(&disk),
        role,
        file,
    };
    let error = format!("{:#}", fixture.run_on(odd, Prepare).unwrap_err());
    assert!(fixture.slot_b_is_empty());
    assert_eq!(fixture.kernel_images(), ["bulkhead_1.0.0.efi"]);
    (fixture, error)
}

#[test]
fn a_slot_that_takes_no_writes_is_said_and_stays_empty() {
    for role in [Role::Root(Slot::B), Role::Verity(Slot::B)] {
        let (fixture, error) = cannot_prepare(role, read_only);
        assert!(
            error.contains("slot B") && error.contains("writing"),
            "{error}"
        );
        let status = fixture.status();
        assert_eq!(status.update_state, UpdateState::Available);
        assert_eq!(status.most_recent_command.unwrap().exit_status, Some(1));
    }
}
