#!/bin/sh
# Makes the tree that it runs in a host that boots: its packages are unpacked, and none of
# their maintainer scripts has run. /programs has what the node runs besides, /esp takes
# what the firmware starts.
set -eu
kernel=$(ls /usr/lib/modules)

# What the maintainer scripts would have done.
ldconfig
depmod "$kernel"
systemd-sysusers
ln -s nc.openbsd /usr/bin/nc
systemctl --root=/ preset-all --preset-mode=enable-only
python3 -m compileall -q /usr/lib/python3 /usr/lib/python3.*

# What whoever makes an image of it does.
: > /etc/machine-id
echo 'LABEL=root / ext4 defaults 0 1' > /etc/fstab
ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
for tree in /programs/*/; do
    for folder in bin libexec share; do
        [ ! -d "$tree/usr/$folder" ] || cp -R "$tree/usr/$folder" /usr/
    done
done
systemctl --root=/ enable containerd.service import-images.service tell-memory.service

mkdir -p /esp/EFI/BOOT /esp/loader/entries
cp /usr/lib/systemd/boot/efi/systemd-bootx64.efi /esp/EFI/BOOT/BOOTX64.EFI
cp "/boot/vmlinuz-$kernel" /esp/linux
mkinitramfs -o /esp/initrd "$kernel"
echo 'timeout 0' > /esp/loader/loader.conf
cat > /esp/loader/entries/stock-node.conf <<END
title Stock node
linux /linux
initrd /initrd
options root=LABEL=root rw quiet console=ttyS0
END
