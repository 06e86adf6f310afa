//! dm-verity: superblock, hash tree and root hash.
//!
//! One form only: SHA-256, 4096-byte blocks, one constant salt, superblock in the
//! first block of the hash partition. The salt never changes, so equal blocks of
//! two images have equal leaf hashes: that is how an update finds out which
//! blocks a host already holds.

use crate::ReadAt;
use sha2::{Digest, Sha256};
use std::fmt;
use std::io;
use std::str::FromStr;
use std::thread;
use uuid::Uuid;

/// Size of data and hash blocks.
pub const BLOCK_SIZE: usize = 4096;
/// Size of a SHA-256 digest.
pub const DIGEST_SIZE: usize = 32;
/// Size of the superblock; the rest of its block is zero.
pub const SUPERBLOCK_SIZE: usize = 512;

/// The salt of every image: SHA-256 of `bulkhead verity salt, version 1`.
pub const SALT: [u8; DIGEST_SIZE] = [
    0xa2, 0xcc, 0xfe, 0xad, 0x14, 0x53, 0x8d, 0x20, 0xb4, 0x81, 0x40, 0x41, 0x6d, 0xf9, 0xc8, 0x87,
    0x8b, 0xd7, 0x6f, 0x2a, 0x4e, 0x9a, 0x17, 0x0a, 0x36, 0xf8, 0x3f, 0xea, 0xb9, 0xf2, 0xef, 0x83,
];

const SIGNATURE: &[u8; 8] = b"verity\0\0";
const VERSION: u32 = 1;
const HASH_TYPE: u32 = 1;
const ALGORITHM: &[u8] = b"sha256";
const DIGESTS_PER_BLOCK: usize = BLOCK_SIZE / DIGEST_SIZE;
/// More than any slot holds (4 TiB); keeps arithmetic on foreign numbers safe.
const DATA_BLOCKS_MAX: u64 = 1 << 30;

/// The root hash of an image.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RootHash(pub [u8; DIGEST_SIZE]);

impl RootHash {
    /// The UUID of the superblock that belongs to this root hash.
    pub fn uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.0[..16]);
        Uuid::from_bytes(bytes)
    }
}

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no root hash.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a root hash is {} hexadecimal digits", 2 * DIGEST_SIZE)]
pub struct RootHashError;

impl FromStr for RootHash {
    type Err = RootHashError;

    fn from_str(text: &str) -> Result<Self, RootHashError> {
        let digits: Vec<u8> = text
            .chars()
            .map(|digit| digit.to_digit(16).map(|value| value as u8))
            .collect::<Option<_>>()
            .ok_or(RootHashError)?;
        let mut hash = [0; DIGEST_SIZE];
        if digits.len() != 2 * DIGEST_SIZE {
            return Err(RootHashError);
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair[0] << 4 | pair[1];
        }
        Ok(Self(hash))
    }
}

/// What the first block of a hash partition says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// First half of the root hash: tells which image the slot holds.
    pub uuid: Uuid,
    /// Blocks of the root file system.
    pub data_blocks: u64,
}

/// Why bytes are no superblock of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// The partition is blank or holds something else.
    #[error("no verity superblock")]
    Missing,
    /// Another version, hash, block size or salt than the one form in use.
    #[error("a verity superblock of another form than this system uses")]
    OtherForm,
    /// The number of blocks makes no sense.
    #[error("a verity superblock with an impossible size")]
    Size,
}

impl Superblock {
    /// The 512 bytes as they lie on the disk.
    pub fn to_bytes(&self) -> [u8; SUPERBLOCK_SIZE] {
        let mut bytes = [0; SUPERBLOCK_SIZE];
        bytes[..8].copy_from_slice(SIGNATURE);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&HASH_TYPE.to_le_bytes());
        bytes[16..32].copy_from_slice(self.uuid.as_bytes());
        bytes[32..32 + ALGORITHM.len()].copy_from_slice(ALGORITHM);
        bytes[64..68].copy_from_slice(&(BLOCK_SIZE as u32).to_le_bytes());
        bytes[68..72].copy_from_slice(&(BLOCK_SIZE as u32).to_le_bytes());
        bytes[72..80].copy_from_slice(&self.data_blocks.to_le_bytes());
        bytes[80..82].copy_from_slice(&(SALT.len() as u16).to_le_bytes());
        bytes[88..88 + SALT.len()].copy_from_slice(&SALT);
        bytes
    }

    /// Reads the first 512 bytes of a hash partition.
    pub fn parse(bytes: &[u8; SUPERBLOCK_SIZE]) -> Result<Self, SuperblockError> {
        if &bytes[..8] != SIGNATURE {
            return Err(SuperblockError::Missing);
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&bytes[16..32]);
        let mut data_blocks = [0; 8];
        data_blocks.copy_from_slice(&bytes[72..80]);
        let superblock = Self {
            uuid: Uuid::from_bytes(uuid),
            data_blocks: u64::from_le_bytes(data_blocks),
        };
        // Everything but these two is constant, so one comparison checks it all.
        if superblock.to_bytes() != *bytes {
            return Err(SuperblockError::OtherForm);
        }
        if superblock.data_blocks == 0 || superblock.data_blocks > DATA_BLOCKS_MAX {
            return Err(SuperblockError::Size);
        }
        Ok(superblock)
    }

    /// Size of the verified data in bytes.
    pub fn data_size(&self) -> u64 {
        self.data_blocks * BLOCK_SIZE as u64
    }

    /// Size of superblock and tree in bytes.
    pub fn tree_size(&self) -> u64 {
        (1 + level_blocks(self.data_blocks).iter().sum::<u64>()) * BLOCK_SIZE as u64
    }

    /// The line that the device-mapper target `verity` takes. A corrupted block
    /// panics the machine: with the default (an I/O error) a host stays up half
    /// dead and never tries its other slot.
    pub fn device_mapper_table(
        &self,
        root_hash: &RootHash,
        data_device: &str,
        hash_device: &str,
    ) -> String {
        use std::fmt::Write;
        let blocks = self.data_blocks;
        let mut line = format!(
            "{HASH_TYPE} {data_device} {hash_device} {BLOCK_SIZE} {BLOCK_SIZE} {blocks} 1 sha256 \
             {root_hash} "
        );
        for byte in SALT {
            let _ = write!(line, "{byte:02x}"); // a String takes everything
        }
        line.push_str(" 1 panic_on_corruption");
        line
    }
}

/// An image with its tree.
#[derive(Debug)]
pub struct Verity {
    /// The root hash.
    pub root_hash: RootHash,
    /// Blocks of the image.
    pub data_blocks: u64,
    /// What belongs on the hash partition: superblock and tree.
    pub bytes: Vec<u8>,
}

/// Why there is no tree.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The image could not be read.
    #[error("cannot read the image")]
    Read(#[from] io::Error),
    /// The image is empty, or not a whole number of blocks.
    #[error("the image has {0} bytes, which is not a whole number of {BLOCK_SIZE}-byte blocks")]
    Size(u64),
}

/// Computes the tree over `image`, on all cores.
pub fn build<D: ReadAt + Sync + ?Sized>(image: &D) -> Result<Verity, BuildError> {
    let size = image.size()?;
    if size == 0 || !size.is_multiple_of(BLOCK_SIZE as u64) {
        return Err(BuildError::Size(size));
    }
    let data_blocks = size / BLOCK_SIZE as u64;
    Ok(over(hash_image(image, data_blocks)?, data_blocks))
}

/// The tree over the digests of all blocks.
fn over(mut digests: Vec<u8>, data_blocks: u64) -> Verity {
    let mut levels = Vec::new();
    while digests.len() > DIGEST_SIZE {
        digests.resize(digests.len().next_multiple_of(BLOCK_SIZE), 0);
        let above = digests
            .chunks_exact(BLOCK_SIZE)
            .flat_map(hash_block)
            .collect();
        levels.push(std::mem::replace(&mut digests, above));
    }
    let mut root_hash = RootHash([0; DIGEST_SIZE]);
    root_hash.0.copy_from_slice(&digests);
    let superblock = Superblock {
        uuid: root_hash.uuid(),
        data_blocks,
    };
    let mut bytes = superblock.to_bytes().to_vec();
    bytes.resize(BLOCK_SIZE, 0);
    // On the disk the level next to the root comes first.
    for level in levels.into_iter().rev() {
        bytes.extend(level);
    }
    Verity {
        root_hash,
        data_blocks,
        bytes,
    }
}

/// A tree that belongs to its root hash: what a block of the image must hash to is known
/// before the image is there.
#[derive(Debug)]
pub struct Tree {
    verity: Verity,
    /// Where in its bytes the digests of the blocks begin.
    leaves_at: usize,
}

/// Why bytes are not the tree that a root hash stands for.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// They cannot be read.
    #[error("cannot read the hash tree")]
    Read(#[from] io::Error),
    /// They begin with something else.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// The tree is cut off.
    #[error("the hash tree has {have} bytes instead of {wanted}")]
    Size {
        /// What there is.
        have: u64,
        /// What its superblock asks for.
        wanted: u64,
    },
    /// It is the tree of another image, or altered.
    #[error("the hash tree does not belong to the root hash {0}")]
    Other(RootHash),
}

impl Tree {
    /// Reads the tree of `root_hash` from a file that may be longer, as partitions are.
    pub fn read<T: ReadAt + ?Sized>(tree: &T, root_hash: &RootHash) -> Result<Self, TreeError> {
        let mut start = [0; SUPERBLOCK_SIZE];
        let have = tree.size()?;
        if have < SUPERBLOCK_SIZE as u64 {
            let wanted = SUPERBLOCK_SIZE as u64;
            return Err(TreeError::Size { have, wanted });
        }
        tree.read_exact_at(&mut start, 0)?;
        let superblock = Superblock::parse(&start)?;
        let wanted = superblock.tree_size();
        if wanted > have {
            return Err(TreeError::Size { have, wanted });
        }
        let mut bytes = vec![0; wanted as usize];
        tree.read_exact_at(&mut bytes, 0)?;
        let leaves = superblock.data_blocks as usize * DIGEST_SIZE;
        let leaf_level = leaves.next_multiple_of(BLOCK_SIZE);
        let (leaves_at, digests) = match superblock.data_blocks {
            // The digest of the only block is the root hash.
            1 => (0, root_hash.0.to_vec()),
            _ => {
                let at = bytes.len() - leaf_level;
                (at, bytes[at..at + leaves].to_vec())
            }
        };
        let verity = over(digests, superblock.data_blocks);
        if verity.root_hash != *root_hash || verity.bytes != bytes {
            return Err(TreeError::Other(*root_hash));
        }
        Ok(Self { verity, leaves_at })
    }

    /// Blocks of the image.
    pub fn data_blocks(&self) -> u64 {
        self.verity.data_blocks
    }

    /// Superblock and tree, as they lie on the disk.
    pub fn bytes(&self) -> &[u8] {
        &self.verity.bytes
    }

    /// The root hash.
    pub fn root_hash(&self) -> &RootHash {
        &self.verity.root_hash
    }

    /// What each block of the image hashes to, in their order.
    pub fn digests(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let leaves = match self.verity.data_blocks {
            1 => &self.verity.root_hash.0[..],
            blocks => &self.verity.bytes[self.leaves_at..][..blocks as usize * DIGEST_SIZE],
        };
        leaves.chunks_exact(DIGEST_SIZE)
    }
}

/// Whether `image` is the one that `root_hash` stands for, and `tree` its tree.
/// Both may be longer than needed, as partitions are.
pub fn verify<D: ReadAt + Sync + ?Sized, T: ReadAt + ?Sized>(
    image: &D,
    tree: &T,
    root_hash: &RootHash,
) -> Result<bool, BuildError> {
    let mut start = [0; SUPERBLOCK_SIZE];
    tree.read_exact_at(&mut start, 0)?;
    let Ok(superblock) = Superblock::parse(&start) else {
        return Ok(false);
    };
    if superblock.data_size() > image.size()? || superblock.tree_size() > tree.size()? {
        return Ok(false);
    }
    let built = build(&Prefix {
        inner: image,
        size: superblock.data_size(),
    })?;
    let mut stored = vec![0; built.bytes.len()];
    tree.read_exact_at(&mut stored, 0)?;
    Ok(built.root_hash == *root_hash && built.bytes == stored)
}

/// The hash of one block, as it stands in the tree's lowest level.
pub fn hash_block(block: &[u8]) -> [u8; DIGEST_SIZE] {
    Sha256::new()
        .chain_update(SALT)
        .chain_update(block)
        .finalize()
        .into()
}

/// The first `size` bytes of something larger.
struct Prefix<'a, D: ?Sized> {
    inner: &'a D,
    size: u64,
}

impl<D: ReadAt + ?Sized> ReadAt for Prefix<'_, D> {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.inner.read_exact_at(buffer, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}

/// Blocks of each level of the tree, the lowest first.
fn level_blocks(data_blocks: u64) -> Vec<u64> {
    let mut levels = Vec::new();
    let mut blocks = data_blocks;
    while blocks > 1 {
        blocks = blocks.div_ceil(DIGESTS_PER_BLOCK as u64);
        levels.push(blocks);
    }
    levels
}

/// The digests of all data blocks, one after the other.
pub(crate) fn hash_image<D: ReadAt + Sync + ?Sized>(
    image: &D,
    data_blocks: u64,
) -> io::Result<Vec<u8>> {
    /// What one thread reads at once.
    const CHUNK_BLOCKS: usize = 256;
    let mut digests = vec![0; data_blocks as usize * DIGEST_SIZE];
    let threads = thread::available_parallelism().map_or(1, |count| count.get());
    let blocks_each = (data_blocks as usize)
        .div_ceil(threads)
        .next_multiple_of(CHUNK_BLOCKS)
        .max(1);
    thread::scope(|scope| {
        let parts: Vec<_> = digests
            .chunks_mut(blocks_each * DIGEST_SIZE)
            .enumerate()
            .map(|(part, digests)| {
                scope.spawn(move || -> io::Result<()> {
                    let mut buffer = vec![0; CHUNK_BLOCKS * BLOCK_SIZE];
                    let mut offset = (part * blocks_each * BLOCK_SIZE) as u64;
                    for digests in digests.chunks_mut(CHUNK_BLOCKS * DIGEST_SIZE) {
                        let blocks = digests.len() / DIGEST_SIZE;
                        let buffer = &mut buffer[..blocks * BLOCK_SIZE];
                        image.read_exact_at(buffer, offset)?;
                        offset += buffer.len() as u64;
                        for (digest, block) in digests
                            .chunks_exact_mut(DIGEST_SIZE)
                            .zip(buffer.chunks_exact(BLOCK_SIZE))
                        {
                            digest.copy_from_slice(&hash_block(block));
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        parts.into_iter().try_for_each(|part| match part.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    Ok(digests)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes that differ from block to block.
    fn image(blocks: usize) -> Vec<u8> {
        (0..blocks * BLOCK_SIZE / 4)
            .flat_map(|word| (word as u32).to_le_bytes())
            .collect()
    }

    #[test]
    fn salt_is_what_its_comment_says() {
        assert_eq!(
            SALT.as_slice(),
            Sha256::digest(b"bulkhead verity salt, version 1").as_slice()
        );
    }

    /// The expected root hashes were computed once by cryptsetup's `veritysetup`.
    #[test]
    fn root_hashes_are_those_of_veritysetup() {
        for (blocks, expected) in VERITYSETUP {
            let verity = build(&image(*blocks)).unwrap();
            assert_eq!(verity.root_hash.to_string(), *expected, "{blocks} blocks");
        }
    }

    #[test]
    fn a_tree_tells_each_blocks_digest() {
        for blocks in [1, 2, 127, 128, 129, 20_000] {
            let image = image(blocks);
            let built = build(&image).unwrap();
            let mut partition = built.bytes.clone();
            partition.resize(partition.len() + 10_000, 7);
            let tree = Tree::read(&partition, &built.root_hash).unwrap();
            assert_eq!(tree.bytes(), built.bytes);
            assert_eq!(tree.digests().len(), blocks);
            for (digest, block) in tree.digests().zip(image.chunks(BLOCK_SIZE)) {
                assert_eq!(digest, hash_block(block));
            }
        }
    }

    #[test]
    fn a_tree_of_something_else_is_refused() {
        let built = build(&image(300)).unwrap();
        let other = RootHash([1; 32]);
        let error = Tree::read(&built.bytes, &other).unwrap_err();
        assert!(matches!(error, TreeError::Other(_)), "{error}");
        for at in [20, 80, 600, BLOCK_SIZE + 5, built.bytes.len() - 1] {
            let mut altered = built.bytes.clone();
            altered[at] ^= 1;
            assert!(Tree::read(&altered, &built.root_hash).is_err(), "byte {at}");
        }
        let short = &built.bytes[..built.bytes.len() - 1];
        let error = Tree::read(short, &built.root_hash).unwrap_err();
        assert!(matches!(error, TreeError::Size { .. }), "{error}");
        assert!(Tree::read(&built.bytes[..100], &built.root_hash).is_err());
    }

    const VERITYSETUP: &[(usize, &str)] = &[
        (
            1,
            "3337010667947406a88ef443fde03e54d8ffd70925d411750a2942e600f89fc0",
        ),
        (
            2,
            "3046d1300c86ce666d14e0893b655b6f83d40d2619d840e40d4b76edbb4996ed",
        ),
        (
            128,
            "3e8e96149b72d179652c202330f9fd238b14873fc4e12f6f9c20c60a505695c5",
        ),
        (
            129,
            "8816d8903acb4b595787238d0d7768592ac1f60a980c0a81f389ae875ed99b0c",
        ),
        (
            300,
            "e4a70468771e4366dece400602f41c527f8d31d75a1f055592baa0e06636717c",
        ),
        (
            16385,
            "9308fdaf9c13a6f9872cad230a37a5280b53357ecd3f7cf53c914b87d534b3d0",
        ),
    ];

    #[test]
    fn tree_has_the_size_that_the_superblock_implies() {
        for blocks in [1, 2, 127, 128, 129, 1000, 16384, 16385] {
            let verity = build(&image(blocks)).unwrap();
            let mut start = [0; SUPERBLOCK_SIZE];
            start.copy_from_slice(&verity.bytes[..SUPERBLOCK_SIZE]);
            let superblock = Superblock::parse(&start).unwrap();
            assert_eq!(superblock.data_blocks, blocks as u64);
            assert_eq!(superblock.uuid, verity.root_hash.uuid());
            assert_eq!(superblock.tree_size(), verity.bytes.len() as u64);
        }
    }

    #[test]
    fn verify_notices_a_flipped_bit_anywhere() {
        let image = image(300);
        let verity = build(&image).unwrap();
        let check = |image: &Vec<u8>, tree: &Vec<u8>| verify(image, tree, &verity.root_hash);
        assert!(check(&image, &verity.bytes).unwrap());
        let mut longer = image.clone();
        longer.resize(400 * BLOCK_SIZE, 0xaa);
        assert!(
            check(&longer, &verity.bytes).unwrap(),
            "a partition is longer than its image"
        );
        for at in [0, 77 * BLOCK_SIZE + 5, image.len() - 1] {
            let mut changed = image.clone();
            changed[at] ^= 0x10;
            assert!(
                !check(&changed, &verity.bytes).unwrap(),
                "byte {at} of the image"
            );
        }
        for at in [0, 20, 75, BLOCK_SIZE, verity.bytes.len() - 1] {
            let mut changed = verity.bytes.clone();
            changed[at] ^= 0x10;
            assert!(!check(&image, &changed).unwrap(), "byte {at} of the tree");
        }
        assert!(!verify(&image, &verity.bytes, &RootHash([7; 32])).unwrap());
    }

    #[test]
    fn odd_sizes_are_refused() {
        for size in [0, 1, 4095, 4097] {
            assert!(
                matches!(build(&vec![0u8; size]), Err(BuildError::Size(n)) if n == size as u64)
            );
        }
    }

    #[test]
    fn device_mapper_line() {
        let superblock = Superblock {
            uuid: Uuid::nil(),
            data_blocks: 7,
        };
        let line = superblock.device_mapper_table(&RootHash([0xab; 32]), "253:1", "253:2");
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(
            words[..8],
            ["1", "253:1", "253:2", "4096", "4096", "7", "1", "sha256"]
        );
        assert_eq!(words[8], "ab".repeat(32));
        assert_eq!(words[10..], ["1", "panic_on_corruption"]);
    }

    proptest! {
        #[test]
        fn superblock_survives_the_disk(uuid in any::<u128>(), data_blocks in 1..=DATA_BLOCKS_MAX) {
            let superblock = Superblock { uuid: Uuid::from_u128(uuid), data_blocks };
            prop_assert_eq!(Superblock::parse(&superblock.to_bytes()), Ok(superblock));
        }

        #[test]
        fn foreign_superblocks_are_refused(bytes in proptest::collection::vec(any::<u8>(), SUPERBLOCK_SIZE), signed in any::<bool>()) {
            let mut block = [0; SUPERBLOCK_SIZE];
            block.copy_from_slice(&bytes);
            if signed {
                block[..8].copy_from_slice(SIGNATURE);
            }
            prop_assert!(Superblock::parse(&block).is_err());
            crate::properties::verity_superblock(&block);
        }

        #[test]
        fn sizes_of_accepted_superblocks_do_not_overflow(data_blocks in any::<u64>()) {
            let superblock = Superblock { uuid: Uuid::nil(), data_blocks };
            if let Ok(superblock) = Superblock::parse(&superblock.to_bytes()) {
                prop_assert!(superblock.tree_size() < superblock.data_size() + 3 * BLOCK_SIZE as u64);
            }
        }

        #[test]
        fn root_hash_survives_text(bytes in any::<[u8; 32]>()) {
            let hash = RootHash(bytes);
            prop_assert_eq!(hash.to_string().parse(), Ok(hash));
        }

        #[test]
        fn other_texts_are_no_root_hash(text in ".{0,80}") {
            let valid = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
            prop_assert_eq!(text.parse::<RootHash>().is_ok(), valid);
        }
    }
}
