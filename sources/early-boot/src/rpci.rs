//! Questions to VMware's hypervisor, over the port that it watches.
//!
//! A channel is opened, a question goes out and its answer comes in four bytes at a
//! time, each with a call of the port, and the channel is closed. When the machine was
//! moved or saved meanwhile, the hypervisor says so and the exchange is begun anew.

use anyhow::{Result, bail, ensure};
use sysutil::vmware;
pub use sysutil::vmware::Registers;

/// A call of the port that is about messages.
const MESSAGE: u32 = 0x1e;
/// `RPCI`, the protocol of questions and answers.
const PROTOCOL: u32 = 0x4943_5052;
/// Asks for a cookie, without which anybody could use the channel.
const WITH_COOKIE: u32 = 0x8000_0000;
/// How often an exchange is begun.
const TRIES: usize = 3;

/// The calls about messages, which stand in the upper half of ECX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Call {
    Open = 0,
    SendSize = 1,
    SendBytes = 2,
    ReceiveSize = 3,
    ReceiveBytes = 4,
    Received = 5,
    Close = 6,
}

/// What stands in the upper half of ECX afterwards.
mod status {
    pub(super) const SUCCESS: u32 = 0x0001;
    pub(super) const ANSWER: u32 = 0x0002;
    pub(super) const MOVED: u32 = 0x0010;
}

/// What calls the hypervisor.
pub trait Port {
    /// Calls it.
    fn call(&mut self, registers: Registers) -> Registers;
}

impl Port for vmware::Port {
    fn call(&mut self, registers: Registers) -> Registers {
        vmware::Port::call(self, registers)
    }
}

/// An open channel.
pub struct Channel<'p, P: Port> {
    port: &'p mut P,
    number: u32,
    cookie: (u32, u32),
}

/// Why an exchange has no answer.
enum Failure {
    Moved,
    Refused(Call),
}

impl<'p, P: Port> Channel<'p, P> {
    /// Opens a channel.
    pub fn open(port: &'p mut P) -> Result<Self> {
        let mut channel = Self {
            port,
            number: 0,
            cookie: (0, 0),
        };
        let after = channel.call(Call::Open, PROTOCOL | WITH_COOKIE);
        ensure!(
            after.c >> 16 & status::SUCCESS != 0,
            "VMware's hypervisor opens no channel"
        );
        // Dropped from here on, it is closed.
        channel.number = after.d >> 16;
        channel.cookie = (after.si, after.di);
        Ok(channel)
    }

    /// The answer to a question, of which no more than `limit` bytes are kept.
    pub fn ask(&mut self, question: &str, limit: usize) -> Result<Vec<u8>> {
        for _ in 0..TRIES {
            match self.exchange(question.as_bytes(), limit) {
                Ok(answer) => return Ok(answer),
                Err(Failure::Moved) => {}
                Err(Failure::Refused(call)) => bail!("VMware's hypervisor refuses {call:?}"),
            }
        }
        bail!("the machine was moved or saved again and again meanwhile")
    }

    fn exchange(&mut self, question: &[u8], limit: usize) -> Result<Vec<u8>, Failure> {
        // A property has at most some MiB, so the size fits.
        self.succeed(Call::SendSize, question.len() as u32)?;
        for bytes in question.chunks(4) {
            let mut word = [0; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            self.succeed(Call::SendBytes, u32::from_le_bytes(word))?;
        }
        let after = self.succeed(Call::ReceiveSize, 0)?;
        if after.c >> 16 & status::ANSWER == 0 {
            return Err(Failure::Refused(Call::ReceiveSize));
        }
        let size = after.b as usize;
        let mut answer = Vec::new();
        // The whole of it has to be taken, or the channel would be of no more use.
        for at in (0..size).step_by(4) {
            let word = self.succeed(Call::ReceiveBytes, status::SUCCESS)?.b;
            let wanted = limit.min(size).saturating_sub(at).min(4);
            answer.extend_from_slice(&word.to_le_bytes()[..wanted]);
        }
        self.succeed(Call::Received, status::SUCCESS)?;
        Ok(answer)
    }

    fn succeed(&mut self, call: Call, argument: u32) -> Result<Registers, Failure> {
        let after = self.call(call, argument);
        let told = after.c >> 16;
        if told & status::SUCCESS != 0 {
            Ok(after)
        } else if told & status::MOVED != 0 {
            Err(Failure::Moved)
        } else {
            Err(Failure::Refused(call))
        }
    }

    fn call(&mut self, call: Call, argument: u32) -> Registers {
        self.port.call(Registers {
            b: argument,
            c: MESSAGE | (call as u32) << 16,
            d: vmware::Port::NUMBER | self.number << 16,
            si: self.cookie.0,
            di: self.cookie.1,
        })
    }
}

impl<P: Port> Drop for Channel<'_, P> {
    fn drop(&mut self) {
        // One that was never opened is refused, which does no harm.
        self.call(Call::Close, 0);
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const CHANNEL: u32 = 5;
    const COOKIE: (u32, u32) = (0x1234_5678, 0x9abc_def0);

    /// A hypervisor that takes nothing out of order and nothing without the cookie.
    #[derive(Default)]
    pub struct Hypervisor {
        properties: BTreeMap<String, String>,
        is_open: bool,
        opened: usize,
        question: Vec<u8>,
        missing: usize,
        answer: Vec<u8>,
        sent: usize,
        /// Calls after which the machine has been moved, once each.
        moves: Vec<usize>,
        calls: usize,
    }

    impl Hypervisor {
        pub fn with(properties: &[(&str, &str)]) -> Self {
            Self {
                properties: properties
                    .iter()
                    .map(|(name, value)| (name.to_string(), value.to_string()))
                    .collect(),
                ..Self::default()
            }
        }

        pub fn assert_closed(&self) {
            assert!(!self.is_open && self.opened == 1);
        }

        fn answer(&self) -> Vec<u8> {
            let question = String::from_utf8(self.question.clone()).expect("a text");
            let name = question.strip_prefix("info-get ").expect("a question");
            match self.properties.get(name) {
                Some(value) => format!("1 {value}").into_bytes(),
                None => b"0 No value found".to_vec(),
            }
        }
    }

    impl Port for Hypervisor {
        fn call(&mut self, registers: Registers) -> Registers {
            assert_eq!(registers.c & 0xffff, MESSAGE);
            assert_eq!(registers.d & 0xffff, 0x5658);
            let mut after = registers;
            let mut tell = |told: u32| after.c = registers.c & 0xffff | told << 16;
            self.calls += 1;
            if let Some(at) = self.moves.iter().position(|at| *at == self.calls) {
                self.moves.remove(at);
                tell(status::MOVED);
                return after;
            }
            tell(status::SUCCESS);
            let call = registers.c >> 16;
            if call == Call::Open as u32 {
                assert_eq!(registers.b, 0xc943_5052);
                self.is_open = true;
                self.opened += 1;
                after.d = registers.d & 0xffff | CHANNEL << 16;
                (after.si, after.di) = COOKIE;
                return after;
            }
            assert!(self.is_open && registers.d >> 16 == CHANNEL);
            assert_eq!((registers.si, registers.di), COOKIE);
            match call {
                1 => {
                    self.question.clear();
                    self.missing = registers.b as usize;
                }
                2 => {
                    let taken = self.missing.min(4);
                    assert_ne!(taken, 0);
                    self.question
                        .extend_from_slice(&registers.b.to_le_bytes()[..taken]);
                    self.missing -= taken;
                }
                3 => {
                    assert_eq!(self.missing, 0);
                    self.answer = self.answer();
                    self.sent = 0;
                    after.b = self.answer.len() as u32;
                    tell(status::SUCCESS | status::ANSWER);
                }
                4 => {
                    assert_eq!(registers.b, status::SUCCESS);
                    let mut word = [0xee; 4];
                    let rest = &self.answer[self.sent..];
                    let taken = rest.len().min(4);
                    assert_ne!(taken, 0);
                    word[..taken].copy_from_slice(&rest[..taken]);
                    self.sent += taken;
                    after.b = u32::from_le_bytes(word);
                }
                5 => assert_eq!(self.sent, self.answer.len()),
                6 => self.is_open = false,
                other => panic!("call {other}"),
            }
            after
        }
    }

    fn ask(hypervisor: &mut Hypervisor, limit: usize) -> Result<String> {
        let mut channel = Channel::open(hypervisor)?;
        let answer = channel.ask("info-get a", limit)?;
        Ok(String::from_utf8(answer)?)
    }

    #[test]
    fn answers_of_every_length_come_whole_or_cut() {
        for length in 0..20 {
            let value = "0123456789abcdefghij"[..length].to_string();
            for limit in 0..25 {
                let mut hypervisor = Hypervisor::with(&[("a", &value)]);
                let mut expected = format!("1 {value}");
                expected.truncate(limit);
                let answer = ask(&mut hypervisor, limit).expect("an answer");
                assert_eq!(answer, expected);
                hypervisor.assert_closed();
            }
        }
    }

    #[test]
    fn an_exchange_is_begun_anew_when_the_machine_was_moved() {
        // From the call after the first, which opens the channel.
        for at in 2..12 {
            let mut hypervisor = Hypervisor::with(&[("a", "value")]);
            hypervisor.moves = vec![at, at + 3];
            let answer = ask(&mut hypervisor, 100);
            // The last call closes the channel, whatever comes of it.
            assert_eq!(answer.expect("an answer"), "1 value", "{at}");
        }
        let mut hypervisor = Hypervisor::with(&[("a", "value")]);
        hypervisor.moves = (2..100).collect();
        assert!(ask(&mut hypervisor, 100).is_err());
    }

    #[test]
    fn who_refuses_is_named() {
        struct Refusing;
        impl Port for Refusing {
            fn call(&mut self, registers: Registers) -> Registers {
                Registers {
                    c: registers.c & 0xffff,
                    ..registers
                }
            }
        }
        let error = Channel::open(&mut Refusing).err().expect("no channel");
        assert_eq!(error.to_string(), "VMware's hypervisor opens no channel");
    }
}
