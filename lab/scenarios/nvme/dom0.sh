# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=sh disable=SC2034,SC2154 # from and for lib/dom0.sh
# about: PV and PVH guests fill and verify disks on the user-space driver, copied and mapped for the drive
# timeout: 400
# machine: pvh
# drive: data size=2G

: "${nvme_guests:=pv pvh}" "${nvme_dma_least:=100}"

# Two partitions for each guest, the first one copied.
disk=$(drive data)
{
	echo "label: gpt"
	for type in $nvme_guests; do
		echo "size=320MiB, name=$type-copy"
		echo "size=320MiB, name=$type-dma"
	done
} >/run/table
must sfdisk -q "$disk" </run/table
start_sluiced
own_drive data drive
must sluice nvme show drive

part=1
for type in $nvme_guests; do
	step "creating a guest ($type)"
	create_guest "$type" "$type" nvme "$(sluice_disk xvda driven1p$part,sharing=copy)" \
		"$(sluice_disk xvdb driven1p$((part + 1)),sharing=dma)"
	part=$((part + 2))
	await_result "$type" 90 up
	for vdev in xvda xvdb; do
		await_proof "$type" $vdev
		counts=$(vbd_stat "$type" "select(.vdev == \"$vdev\").shared_by | \"\(.copy.bytes) \(.dma.bytes)\"")
		copied=${counts% *} mapped=${counts#* }
		# shellcheck disable=SC2046 # four numbers
		set -- $(guest_result "$type" ${vdev}_counts)
		[ $((copied + mapped)) -ge $((($2 + $4) * 512)) ] || fail "$type's $vdev: the guest moved" \
			"$((($2 + $4) * 512)) bytes, but sluiced $((copied + mapped)) only"
		story "of the bytes of $type's $vdev $copied were copied, $mapped mapped for the drive"
		case $vdev in
		xvda) [ "$mapped" = 0 ] || fail "pages of a disk that is copied were mapped" ;;
		xvdb) [ $((mapped * 100)) -ge $(((copied + mapped) * nvme_dma_least)) ] ||
			fail "too much of a disk that is mapped was copied" ;;
		esac
	done
	must sluice list
	must sluice stat
	must xl shutdown "$type"
	await_end "$type" 60
	check_guest "$type"
done
must sluice nvme show drive

step "giving the drive back to the kernel, and comparing it with what the guests reported"
return_drive data drive
stop_sluiced
disk=$(drive data)
part=1
for type in $nvme_guests; do
	for vdev in xvda xvdb; do
		wait_for 5 "the partitions in dom0" test -b "${disk}p$part"
		compare_proof "$type" $vdev "${disk}p$part"
		part=$((part + 1))
	done
done
story "read by the kernel past sluiced, all partitions hold what the guests reported"
pass
