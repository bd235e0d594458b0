"""The JSON spelling of a field: camel case by one rule, and the words that the specification writes otherwise."""

from __future__ import annotations

EXCEPTIONS = {
    "block_io": "blockIO",
    "class_id": "classID",
    "clos_id": "closID",
    "container_id": "containerID",
    "disable_oom_killer": "disableOOMKiller",
    "enable_cmt": "enableCMT",
    "enable_mbm": "enableMBM",
    "exec_cpu_affinity": "execCPUAffinity",
    "host_id": "hostID",
    "kernel_tcp": "kernelTCP",
    "throttle_read_iops_device": "throttleReadIOPSDevice",
    "throttle_write_iops_device": "throttleWriteIOPSDevice",
}


def json_key(field: str) -> str:
    """`no_new_privileges` is `noNewPrivileges`; a trailing underscore (of `class_`) is Python's own."""
    if field in EXCEPTIONS:
        return EXCEPTIONS[field]
    first, *rest = field.rstrip("_").split("_")
    return first + "".join(word.capitalize() for word in rest)
