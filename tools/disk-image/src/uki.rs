//! The unified kernel image: kernel, initrd and command line as one EFI program
//! around systemd's stub, to be signed as a whole.

use crate::pe::{NewSection, Pe};
use anyhow::{Context, Result, bail};
use boot_slots::parameters::{COMMAND_LINE_MAX, MARK};

/// What goes into the image.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// systemd's stub for unified kernel images.
    pub stub: &'a [u8],
    /// The os-release. The boot loader orders images by its `IMAGE_VERSION`.
    pub os_release: &'a str,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// The kernel's release, as `uname -r` says it.
    pub kernel_release: &'a str,
    /// The kernel, itself an EFI program.
    pub kernel: &'a [u8],
    /// The initrd.
    pub initrd: &'a [u8],
}

/// Joins everything. The result is not signed.
pub fn build(options: &Options) -> Result<Vec<u8>> {
    for key in ["IMAGE_ID=", "IMAGE_VERSION="] {
        if !options.os_release.lines().any(|line| line.starts_with(key)) {
            bail!("the os-release has no {key}, by which the boot loader orders images");
        }
    }
    if options.command_line.len() > COMMAND_LINE_MAX {
        bail!(
            "the kernel command line has {} bytes, more than the {COMMAND_LINE_MAX} it may have",
            options.command_line.len()
        );
    }
    let ours = |word: &str| word == MARK || word == "--";
    if let Some(word) = options
        .command_line
        .split_whitespace()
        .find(|word| ours(word))
    {
        bail!("{word} on the kernel command line is for what settings add to it");
    }
    let stub = Pe::parse(options.stub).context("the stub is unusable")?;
    let kernel = Pe::parse(options.kernel).context("the kernel is not an EFI program")?;
    let section = |name, content| NewSection {
        name,
        content,
        memory_size: 0,
    };
    stub.with_sections(
        options.stub,
        &[
            section(".osrel", options.os_release.as_bytes()),
            section(".cmdline", options.command_line.as_bytes()),
            section(".uname", options.kernel_release.as_bytes()),
            section(".initrd", options.initrd),
            // Last, and with the room that the kernel needs behind its file, so
            // that nothing lies there.
            NewSection {
                name: ".linux",
                content: options.kernel,
                memory_size: kernel.image_size,
            },
        ],
    )
    .context("cannot join the unified kernel image")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pe::tests::pe_file;

    #[test]
    fn sections_hold_their_inputs() {
        let (stub, kernel) = (pe_file(b"stub"), pe_file(&[3; 9000]));
        let options = Options {
            stub: &stub,
            os_release: "IMAGE_ID=bulkhead\nIMAGE_VERSION=1.2.0\n",
            command_line: "quiet panic=5",
            kernel_release: "6.12",
            kernel: &kernel,
            initrd: &[4; 777],
        };
        let image = build(&options).unwrap();
        assert!(image == build(&options).unwrap(), "two builds differ");
        let pe = Pe::parse(&image).unwrap();
        let content = |name: &str| {
            let section = pe
                .sections
                .iter()
                .find(|s| s.name == name.as_bytes())
                .unwrap();
            let size = (section.size as usize).min(section.raw_size);
            &image[section.raw_offset..section.raw_offset + size]
        };
        assert_eq!(content(".osrel"), options.os_release.as_bytes());
        assert_eq!(content(".cmdline"), b"quiet panic=5");
        assert_eq!(content(".uname"), b"6.12");
        assert_eq!(content(".initrd"), options.initrd);
        assert!(content(".linux").starts_with(&kernel));

        let long = "x".repeat(COMMAND_LINE_MAX + 1);
        for bad in [
            Options {
                command_line: &long,
                ..options
            },
            Options {
                command_line: "quiet -- x",
                ..options
            },
            Options {
                command_line: "bulkhead.settings",
                ..options
            },
            Options {
                os_release: "ID=x\n",
                ..options
            },
            Options {
                kernel: b"no kernel",
                ..options
            },
            Options {
                stub: b"MZ",
                ..options
            },
        ] {
            assert!(build(&bad).is_err());
        }
    }

    #[test]
    fn addons_of_the_host_are_found_by_their_section() {
        use boot_slots::addon;
        use boot_slots::layout::Architecture;
        for (architecture, machine) in [
            (Architecture::X86_64, [0x64, 0x86]),
            (Architecture::Aarch64, [0x64, 0xaa]),
        ] {
            for length in [1, 511, 512, 513, COMMAND_LINE_MAX] {
                let text = "x".repeat(length);
                let file = addon::build(&text, architecture);
                let pe = Pe::parse(&file).unwrap();
                assert_eq!(file[0x44..0x46], machine);
                assert_eq!(pe.signatures, (0, 0));
                let [section] = &pe.sections[..] else {
                    panic!("{} sections", pe.sections.len());
                };
                assert_eq!(section.name, b".cmdline");
                assert_eq!(section.size as usize, length);
                assert!(section.address >= pe.headers_size as u32);
                assert!(section.address + section.size <= pe.image_size);
                let raw = &file[section.raw_offset..][..section.raw_size];
                assert_eq!(&raw[..length], text.as_bytes());
                assert!(raw[length..].iter().all(|byte| *byte == 0));
            }
        }
    }
}
