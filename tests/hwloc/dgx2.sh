#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# tests/hwloc/dgx2.sh: XML of a machine like a DGX-2, made up from its public
# description: two packages of 24 cores and 48 processors each, and below each
# eight GPUs behind PCI switches, with their CUDA and NVML devices, four
# InfiniBand adapters, NVMe disks, and the bandwidth of the links between all
# sixteen GPUs as distances. (hwloc's own file of one came after 2.9.0; Debian's
# archive has the source of 2.9.0 alone.)
awk '
function gp() { return ++index_ }
function attr(name, value) { return " " name "=\"" value "\"" }
# A set of the processors from a to b of both threads; b < 0 for one processor.
function cpus(a, b,    w, i, s) {
    w[0] = w[1] = w[2] = 0
    for (i = a; i <= (b < 0 ? a : b); i++) {
        w[int(i / 32)] += 2 ^ (i % 32)
        if (b >= 0) w[int((i + 48) / 32)] += 2 ^ ((i + 48) % 32)
    }
    return sprintf("0x%08x,0x%08x,0x%08x", w[2], w[1], w[0])
}
function sets(c, n) {
    return attr("cpuset", c) attr("complete_cpuset", c) attr("nodeset", n) attr("complete_nodeset", n)
}
function open_(type, more) { print "<object" attr("type", type) attr("gp_index", gp()) more ">" }
function close_() { print "</object>" }
function info(name, value) { print "<info" attr("name", name) attr("value", value) "/>" }
function osdev(name, subtype, type) {
    open_("OSDev", attr("name", name) (subtype == "" ? "" : attr("subtype", subtype)) attr("osdev_type", type))
}
function cache(type, depth, kind, size, c, n) {
    open_(type, sets(c, n) attr("cache_size", size) attr("depth", depth) attr("cache_linesize", 64) \
        attr("cache_associativity", 8) attr("cache_type", kind))
}
function bridge(busid, from, to) {
    open_("Bridge", attr("bridge_type", "1-1") attr("depth", 1) \
        attr("bridge_pci", sprintf("0000:[%02x-%02x]", from, to)) attr("pci_busid", busid) \
        attr("pci_type", "0604 [10b5:9797] [10b5:9797] aa") attr("pci_link_speed", "15.753846"))
}
function device(bus, type) {
    open_("PCIDev", attr("pci_busid", sprintf("0000:%02x:00.0", bus)) attr("pci_type", type) \
        attr("pci_link_speed", "15.753846"))
}
BEGIN {
    print "<?xml version=\"1.0\" encoding=\"UTF-8\"?>"
    print "<!DOCTYPE topology SYSTEM \"hwloc2.dtd\">"
    print "<topology version=\"2.0\">"
    all = cpus(0, 47)
    open_("Machine", attr("os_index", 0) sets(all, "0x00000003") attr("allowed_cpuset", all) \
        attr("allowed_nodeset", "0x00000003"))
    info("DMIProductName", "like a DGX-2"); info("Architecture", "x86_64"); info("Backend", "Linux")
    for (p = 0; p < 2; p++) {
        c = cpus(p * 24, p * 24 + 23); n = sprintf("0x%08x", 2 ^ p)
        open_("Package", attr("os_index", p) sets(c, n))
        info("CPUModel", "Intel(R) Xeon(R) Platinum 8168 CPU @ 2.70GHz")
        open_("NUMANode", attr("os_index", p) sets(c, n) attr("local_memory", "811256659968"))
        print "<page_type size=\"4096\" count=\"198060708\"/><page_type size=\"2097152\" count=\"0\"/>"
        close_()
        cache("L3Cache", 3, 0, 34603008, c, n)
        for (k = p * 24; k < p * 24 + 24; k++) {
            c = cpus(k, k)
            cache("L2Cache", 2, 0, 1048576, c, n)
            cache("L1Cache", 1, 1, 32768, c, n)
            open_("Core", attr("os_index", k % 24) sets(c, n))
            for (t = 0; t < 2; t++) {
                open_("PU", attr("os_index", k + 48 * t) sets(cpus(k + 48 * t, -1), n))
                close_()
            }
            close_(); close_(); close_()
        }
        close_()
        for (h = 0; h < 4; h++) {
            bus = 128 * p + 32 * h
            open_("Bridge", attr("bridge_type", "0-1") attr("depth", 0) \
                attr("bridge_pci", sprintf("0000:[%02x-%02x]", bus, bus + 31)))
            bridge(sprintf("0000:%02x:00.0", bus), bus + 1, bus + 31)
            for (g = 0; g < 2; g++) {
                device(bus + 2 + g, "0302 [10de:1db8] [10de:12ab] a1")
                info("PCIVendor", "NVIDIA Corporation")
                osdev("cuda" gpus, "CUDA", 5)
                info("GPUModel", "Tesla V100-SXM3-32GB"); info("CUDAGlobalMemorySize", "33298752")
                close_()
                osdev("nvml" gpus, "NVML", 1)
                nvml[gpus++] = index_
                info("NVIDIASerial", 320000000000 + gpus)
                close_(); close_()
            }
            device(bus + 8, "0207 [15b3:1017] [15b3:0006] 00")
            osdev("ib" ports, "", 2); close_()
            osdev("mlx5_" ports++, "", 3); info("Port1LID", sprintf("0x%x", 16 + ports)); close_()
            close_()
            device(bus + 16, "0108 [144d:a822] [144d:a801] 01")
            osdev("nvme" disks++ "n1", "Disk", 0); info("Size", "3750738264"); close_()
            # A kind of device that this release does not know.
            osdev("later" disks, "", 12); close_()
            close_(); close_(); close_()
        }
        close_()
    }
    close_()
    for (i = 0; i < gpus; i++) {
        indexes = indexes nvml[i] " "
        for (k = 0; k < gpus; k++) values = values (i == k ? 900000 : 150000) " "
    }
    print "<distances2" attr("type", "OSDev") attr("nbobjs", gpus) attr("kind", 9) \
        attr("name", "NVLinkBandwidth") attr("indexing", "gp") ">"
    print "<indexes" attr("length", length(indexes)) ">" indexes "</indexes>"
    print "<u64values" attr("length", length(values)) ">" values "</u64values>"
    print "</distances2>"
    print "</topology>"
}'
