//! The boot record: the host's identity and the counter of failed boots.
//!
//! systemd-boot counts the tries of a new image, but an image that has proved
//! itself has no counter. `init` therefore counts every boot here, and the
//! product's health unit takes the count back when the boot is complete.
//!
//! The record is one sector at the start of the state partition, where ext4
//! leaves the first 1024 bytes alone. A sector is written whole or not at all by
//! the disks in question; a record that is torn or foreign all the same reads as
//! an empty one, so that it never stops a boot. Images are told apart by the
//! first half of their root hash.

use crate::ReadAt;
use crate::verity::RootHash;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Size of the record.
pub const RECORD_SIZE: usize = 512;

/// Boots in a row that an image may fail after it was blessed.
pub const FAILURES_MAX: u32 = 3;

/// Boots in a row that an image may fail before restarting ends. The boot loader
/// starts an exhausted image only when there is no other, so that many failures
/// mean that no image works.
pub const FAILURES_BEFORE_LAST: u32 = 2 * FAILURES_MAX;

const MAGIC: &[u8; 8] = b"BLKHBOOT";
const FORMAT: u32 = 1;
const IMAGES_AT: usize = 32;
const IMAGE_SIZE: usize = 24;
const CHECKSUM_AT: usize = RECORD_SIZE - 4;
/// Images remembered; the ones that booted longest ago make room.
const IMAGES_MAX: usize = 8;
const BLESSED: u32 = 1;

/// The first half of a root hash.
pub type ImageId = [u8; 16];

/// What the sector says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootRecord {
    /// The host's identity; `None` before the first boot.
    pub machine_id: Option<[u8; 16]>,
    /// Images that were started, the latest first.
    images: Vec<ImageState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ImageState {
    id: ImageId,
    failures: u32,
    blessed: bool,
}

/// What to do about the image that is booting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Boot,
    /// It had proved itself but failed too often since: the other one should be
    /// tried, if there is one.
    Demote,
    /// Go on, but let a failure stop the machine with its cause on the console:
    /// restarting again would not help. (Not booting at all would be worse: a
    /// host can be unwell, and so never complete a boot, and still be reachable.)
    BootOnceMore,
}

impl BootRecord {
    /// Reads the record, or an empty one when there is none.
    pub fn parse(bytes: &[u8; RECORD_SIZE]) -> Self {
        let checksum = crc32fast::hash(&bytes[..CHECKSUM_AT]).to_le_bytes();
        let count = bytes[28] as usize;
        if &bytes[..8] != MAGIC
            || bytes[8..12] != FORMAT.to_le_bytes()
            || bytes[CHECKSUM_AT..] != checksum
            || count > IMAGES_MAX
        {
            return Self::default();
        }
        let mut machine_id = [0; 16];
        machine_id.copy_from_slice(&bytes[12..28]);
        let images = bytes[IMAGES_AT..]
            .chunks_exact(IMAGE_SIZE)
            .take(count)
            .map(|image| {
                let mut id = [0; 16];
                id.copy_from_slice(&image[..16]);
                ImageState {
                    id,
                    failures: u32::from_le_bytes([image[16], image[17], image[18], image[19]]),
                    blessed: image[20..24] == BLESSED.to_le_bytes(),
                }
            })
            .collect();
        Self {
            machine_id: Some(machine_id).filter(|id| *id != [0; 16]),
            images,
        }
    }

    /// Makes a sector look like a record: past the checksum lie the checks that
    /// matter.
    pub(crate) fn seal(bytes: &mut [u8; RECORD_SIZE]) {
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..CHECKSUM_AT]).to_le_bytes();
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum);
    }

    /// The sector.
    pub fn to_bytes(&self) -> [u8; RECORD_SIZE] {
        let mut bytes = [0; RECORD_SIZE];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..28].copy_from_slice(&self.machine_id.unwrap_or_default());
        bytes[28] = self.images.len().min(IMAGES_MAX) as u8;
        for (place, image) in bytes[IMAGES_AT..]
            .chunks_exact_mut(IMAGE_SIZE)
            .zip(self.images.iter().take(IMAGES_MAX))
        {
            place[..16].copy_from_slice(&image.id);
            place[16..20].copy_from_slice(&image.failures.to_le_bytes());
            place[20..24].copy_from_slice(&u32::from(image.blessed).to_le_bytes());
        }
        let checksum = crc32fast::hash(&bytes[..CHECKSUM_AT]).to_le_bytes();
        bytes[CHECKSUM_AT..].copy_from_slice(&checksum);
        bytes
    }

    /// Reads the record of a state partition. Only an I/O error is an error.
    pub fn read<D: ReadAt + ?Sized>(state: &D) -> io::Result<Self> {
        let mut bytes = [0; RECORD_SIZE];
        state.read_exact_at(&mut bytes, 0)?;
        Ok(Self::parse(&bytes))
    }

    /// Writes the record, and makes sure that it lies on the disk.
    pub fn write(&self, state: &File) -> io::Result<()> {
        state.write_all_at(&self.to_bytes(), 0)?;
        state.sync_data()
    }

    /// Counts a boot of `image` as failed until [`bless`](Self::bless) says
    /// otherwise, and judges it by the boots before.
    pub fn start(&mut self, image: &RootHash) -> Verdict {
        let state = self.state_of(image);
        let before = state.failures;
        state.failures = before.saturating_add(1);
        if state.blessed && (FAILURES_MAX..FAILURES_BEFORE_LAST).contains(&before) {
            Verdict::Demote
        } else if before >= FAILURES_BEFORE_LAST {
            Verdict::BootOnceMore
        } else {
            Verdict::Boot
        }
    }

    /// The boot of `image` is complete.
    pub fn bless(&mut self, image: &RootHash) {
        let state = self.state_of(image);
        state.failures = 0;
        state.blessed = true;
    }

    /// `image` was taken back: from now on the boot loader starts it only when
    /// there is no other. Its failures stay, so that
    /// [`Verdict::BootOnceMore`] is reached.
    pub fn demote(&mut self, image: &RootHash) {
        self.state_of(image).blessed = false;
    }

    /// The failures of `image` have a cause outside of it, which is gone now.
    pub fn excuse(&mut self, image: &RootHash) {
        self.state_of(image).failures = 0;
    }

    /// Boots in a row that `image` did not complete, the running one included.
    pub fn failures(&self, image: &RootHash) -> u32 {
        let id = id_of(image);
        self.images
            .iter()
            .find(|state| state.id == id)
            .map_or(0, |state| state.failures)
    }

    /// Whether `image` once completed a boot and was not demoted since.
    pub fn is_blessed(&self, image: &RootHash) -> bool {
        let id = id_of(image);
        self.images
            .iter()
            .any(|state| state.id == id && state.blessed)
    }

    /// The state of `image`, moved to the front.
    fn state_of(&mut self, image: &RootHash) -> &mut ImageState {
        let id = id_of(image);
        let state = match self.images.iter().position(|state| state.id == id) {
            Some(at) => self.images.remove(at),
            None => ImageState {
                id,
                failures: 0,
                blessed: false,
            },
        };
        self.images.insert(0, state);
        self.images.truncate(IMAGES_MAX);
        &mut self.images[0]
    }
}

fn id_of(image: &RootHash) -> ImageId {
    image.uuid().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn image(number: u8) -> RootHash {
        RootHash([number; 32])
    }

    #[test]
    fn a_blessed_image_is_demoted_after_three_failed_boots() {
        let mut record = BootRecord::default();
        assert_eq!(record.start(&image(1)), Verdict::Boot);
        record.bless(&image(1));
        for _ in 0..FAILURES_MAX {
            assert_eq!(record.start(&image(1)), Verdict::Boot);
        }
        assert_eq!(record.start(&image(1)), Verdict::Demote);
    }

    #[test]
    fn a_completed_boot_takes_the_failures_back() {
        let mut record = BootRecord::default();
        for _ in 0..10 {
            for _ in 0..FAILURES_MAX {
                assert_eq!(record.start(&image(1)), Verdict::Boot);
            }
            record.bless(&image(1));
            assert_eq!(record.failures(&image(1)), 0);
        }
    }

    #[test]
    fn a_new_image_is_left_to_the_boot_loaders_counting_until_nothing_works() {
        let mut record = BootRecord::default();
        for _ in 0..FAILURES_BEFORE_LAST {
            assert_eq!(record.start(&image(1)), Verdict::Boot);
        }
        for _ in 0..3 {
            assert_eq!(record.start(&image(1)), Verdict::BootOnceMore);
        }
        record.bless(&image(1));
        assert_eq!(record.start(&image(1)), Verdict::Boot);
    }

    #[test]
    fn restarting_ends_whether_or_not_there_is_another_image() {
        for other_exists in [true, false] {
            let mut record = BootRecord::default();
            record.bless(&image(1));
            let boots = std::iter::from_fn(|| match record.start(&image(1)) {
                Verdict::BootOnceMore => None,
                Verdict::Demote if other_exists => {
                    record.demote(&image(1));
                    Some(Verdict::Demote)
                }
                verdict => Some(verdict),
            });
            assert_eq!(boots.take(100).count(), FAILURES_BEFORE_LAST as usize);
        }
    }

    #[test]
    fn an_excused_image_begins_anew() {
        let mut record = BootRecord::default();
        record.bless(&image(1));
        for _ in 0..=FAILURES_MAX {
            record.start(&image(1));
        }
        record.excuse(&image(1));
        assert!(record.is_blessed(&image(1)));
        assert_eq!(record.start(&image(1)), Verdict::Boot);
    }

    #[test]
    fn images_are_counted_apart_and_the_oldest_make_room() {
        let mut record = BootRecord::default();
        for number in 0..20 {
            record.start(&image(number));
        }
        record.start(&image(19));
        assert_eq!(record.failures(&image(19)), 2);
        assert_eq!(record.failures(&image(12)), 1);
        assert_eq!(record.failures(&image(11)), 0);
    }

    #[test]
    fn blank_or_foreign_sectors_are_an_empty_record() {
        let mut record = BootRecord {
            machine_id: Some([7; 16]),
            images: Vec::new(),
        };
        record.start(&image(1));
        let sound = record.to_bytes();
        assert_eq!(BootRecord::parse(&sound), record);
        assert_eq!(BootRecord::parse(&[0; RECORD_SIZE]), BootRecord::default());
        for at in 0..RECORD_SIZE {
            let mut torn = sound;
            torn[at] ^= 0x40;
            assert_eq!(BootRecord::parse(&torn), BootRecord::default(), "byte {at}");
        }
    }

    #[test]
    fn it_leaves_the_file_system_behind_it_alone() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[0x5a; 2048], 0).unwrap();
        let mut record = BootRecord::read(&file).unwrap();
        assert_eq!(record, BootRecord::default());
        record.bless(&image(3));
        record.write(&file).unwrap();
        assert!(BootRecord::read(&file).unwrap().is_blessed(&image(3)));
        let mut rest = [0; 1536];
        ReadAt::read_exact_at(&file, &mut rest, 512).unwrap();
        assert_eq!(rest, [0x5a; 1536]);
    }

    proptest! {
        #[test]
        fn every_record_survives_the_disk(id in any::<[u8; 16]>(), boots in proptest::collection::vec((0u8..12, any::<bool>()), 0..40)) {
            let mut record = BootRecord { machine_id: Some(id).filter(|id| *id != [0; 16]), images: Vec::new() };
            for (number, completed) in boots {
                record.start(&image(number));
                if completed {
                    record.bless(&image(number));
                }
            }
            prop_assert_eq!(BootRecord::parse(&record.to_bytes()), record);
        }

        #[test]
        fn any_bytes_are_a_record(bytes in proptest::collection::vec(any::<u8>(), RECORD_SIZE)) {
            crate::properties::boot_record(&bytes);
        }
    }
}
