"""Control groups: one model of the tree over v1, v2 and hybrid layouts.

layout       which hierarchies this machine has, and where we are in them
group        one group: placed, made, joined, limited, frozen, killed, removed
directories  its directories in the tree; `ending`: the slow ways out of them
resources    OCI `linux.resources` and the writes it turns into (`to_v1`, `to_v2`, `convert`)
files        one control file: read, write, and compare what the kernel holds
devices      the device rules: v1 lines, v2 BPF program
limits       the limit that holds: the tightest on the way to the root
usage        what a group has used
events       out of memory, process limit hit
pressure     PSI
"""
