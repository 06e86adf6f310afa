//! The unified kernel image: kernel, initrd and command line as one EFI program
//! around systemd's stub, to be signed as a whole.

use crate::pe::{NewSection, Pe};
use anyhow::{Context, Result, bail};

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

/// What the kernel takes on x86; other processors take no less.
const COMMAND_LINE_MAX: usize = 2047;

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
}
