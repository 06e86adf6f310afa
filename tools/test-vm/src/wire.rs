//! The test's own plug in the Ethernet segment of a machine with several cards:
//! whole frames, VLAN tags and all, as no program inside the guest could fake them.
//!
//! The emulator passes each frame as one datagram of a Unix socket, so that this
//! needs neither a tap device nor any right on the workstation.

use crate::socket;
use anyhow::{Context, Result};
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

/// The emulator's end, in the run's folder.
pub(crate) const EMULATOR: &str = "wire.sock";
/// The test's end.
pub(crate) const TEST: &str = "wire-test.sock";

/// The test's address on the segment: a locally administered one.
const OWN_ADDRESS: HardwareAddress = [2, 0, 0, 0, 0, 1];
/// Longest frame: 64 KiB, which no card of ours sends.
const FRAME_LIMIT: usize = 64 << 10;

/// An Ethernet address.
pub type HardwareAddress = [u8; 6];

/// "Who has this address?" of RFC 826.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The VLAN that is asked on; none for an untagged frame.
    pub vlan: Option<u16>,
    /// The address that is asked for.
    pub target: Ipv4Addr,
    /// Who asks. Some address of the same network, or nobody answers.
    pub sender: Ipv4Addr,
}

/// "It is here."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    vlan: Option<u16>,
    address: Ipv4Addr,
    hardware: HardwareAddress,
}

/// The plug. What comes in and is no answer is dropped.
#[derive(Debug)]
pub struct Wire {
    socket: UnixDatagram,
    answers: Receiver<Answer>,
}

impl Wire {
    /// Makes the test's end in the run's folder, before the emulator starts.
    pub(crate) fn open(run: &Path) -> Result<Self> {
        let socket = socket::bind_datagrams(&run.join(TEST))?;
        let reader = socket
            .try_clone()
            .context("cannot duplicate the socket of the test's wire")?;
        let (sender, answers) = channel();
        // Always read: a segment with a plug that takes nothing would stand still.
        thread::Builder::new()
            .name("wire".to_string())
            .spawn(move || read_answers(&reader, &sender))
            .context("cannot start the thread that reads the test's wire")?;
        Ok(Self { socket, answers })
    }

    /// Connects to the emulator's end, which is there once the emulator listens.
    pub(crate) fn connect(&self, run: &Path) -> Result<()> {
        socket::connect_datagrams(&self.socket, &run.join(EMULATOR))
    }

    /// Asks once, and waits for the answer as long as `patience`.
    pub fn ask(&self, question: Question, patience: Duration) -> Result<Option<HardwareAddress>> {
        self.socket
            .send(&question.frame())
            .context("cannot send to the machine's network")?;
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left) {
                Ok(answer) if answer.fits(question) => return Ok(Some(answer.hardware)),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => {
                    anyhow::bail!("the machine's network is gone")
                }
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // Ends the thread, which reads a duplicate of the same socket.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

fn read_answers(socket: &UnixDatagram, answers: &Sender<Answer>) {
    let mut frame = vec![0; FRAME_LIMIT];
    // A shut down socket gives empty datagrams, and an error is its end, too.
    while let Ok(length @ 1..) = socket.recv(&mut frame) {
        if let Some(answer) = Answer::parse(&frame[..length])
            && answers.send(answer).is_err()
        {
            return;
        }
    }
}

/// EtherType of an 802.1Q tag.
const TAGGED: [u8; 2] = [0x81, 0x00];
/// EtherType of ARP, then Ethernet and IPv4 with their lengths.
const ARP_OF_IPV4: [u8; 8] = [0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];

impl Question {
    fn frame(&self) -> Vec<u8> {
        let mut frame = Vec::with_capacity(46);
        frame.extend([0xff; 6]);
        frame.extend(OWN_ADDRESS);
        if let Some(vlan) = self.vlan {
            frame.extend(TAGGED);
            frame.extend(vlan.to_be_bytes());
        }
        frame.extend(ARP_OF_IPV4);
        frame.extend(REQUEST);
        frame.extend(OWN_ADDRESS);
        frame.extend(self.sender.octets());
        frame.extend([0; 6]);
        frame.extend(self.target.octets());
        frame
    }
}

impl Answer {
    fn parse(frame: &[u8]) -> Option<Self> {
        let mut rest = frame.get(12..)?;
        let vlan = match rest.strip_prefix(&TAGGED) {
            Some(tagged) => {
                let (tag, payload) = tagged.split_first_chunk::<2>()?;
                rest = payload;
                // The upper bits are the priority.
                Some(u16::from_be_bytes(*tag) & 0xfff)
            }
            None => None,
        };
        let reply = rest.strip_prefix(&ARP_OF_IPV4)?.strip_prefix(&REPLY)?;
        let (hardware, rest) = reply.split_first_chunk::<6>()?;
        let (address, _) = rest.split_first_chunk::<4>()?;
        Some(Self {
            vlan,
            address: Ipv4Addr::from(*address),
            hardware: *hardware,
        })
    }

    fn fits(&self, question: Question) -> bool {
        self.vlan == question.vlan && self.address == question.target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUESTION: Question = Question {
        vlan: Some(40),
        target: Ipv4Addr::new(10, 40, 0, 7),
        sender: Ipv4Addr::new(10, 40, 0, 1),
    };
    const HARDWARE: HardwareAddress = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    fn reply(vlan: Option<u16>) -> Vec<u8> {
        let question = Question { vlan, ..QUESTION };
        let mut frame = question.frame();
        let arp = frame.len() - 28;
        frame[arp + 7] = 2;
        frame[arp + 8..arp + 14].copy_from_slice(&HARDWARE);
        frame[arp + 14..arp + 18].copy_from_slice(&QUESTION.target.octets());
        frame
    }

    #[test]
    fn a_question_is_a_tagged_broadcast() {
        let frame = QUESTION.frame();
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!(frame[12..18], [0x81, 0, 0, 40, 8, 6]);
        assert_eq!(frame.len(), 46);
        let untagged = Question {
            vlan: None,
            ..QUESTION
        };
        assert_eq!(untagged.frame().len(), 42);
    }

    #[test]
    fn only_an_answer_of_the_same_network_counts() {
        let answer = Answer::parse(&reply(Some(40))).unwrap();
        assert_eq!(answer.hardware, HARDWARE);
        assert!(answer.fits(QUESTION));
        assert!(!Answer::parse(&reply(Some(41))).unwrap().fits(QUESTION));
        assert!(!Answer::parse(&reply(None)).unwrap().fits(QUESTION));
        assert_eq!(Answer::parse(&QUESTION.frame()), None);
        let whole = reply(Some(40));
        for length in 0..whole.len() - 10 {
            assert_eq!(Answer::parse(&whole[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn asks_over_the_emulators_socket() {
        let folder = tempfile::tempdir().unwrap();
        let wire = Wire::open(folder.path()).unwrap();
        let emulator = UnixDatagram::bind(folder.path().join(EMULATOR)).unwrap();
        emulator.connect(folder.path().join(TEST)).unwrap();
        wire.connect(folder.path()).unwrap();
        let card = thread::spawn(move || {
            let mut frame = [0; 100];
            assert_eq!(emulator.recv(&mut frame).unwrap(), 46);
            emulator.send(b"noise").unwrap();
            emulator.send(&reply(Some(41))).unwrap();
            emulator.send(&reply(Some(40))).unwrap();
            emulator
        });
        let answer = wire.ask(QUESTION, Duration::from_secs(10)).unwrap();
        assert_eq!(answer, Some(HARDWARE));
        let _emulator = card.join().unwrap();
        let none = wire.ask(QUESTION, Duration::from_millis(20)).unwrap();
        assert_eq!(none, None);
    }
}
