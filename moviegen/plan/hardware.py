"""What a planner must know of a machine: datasheet numbers, what was measured, and what was fitted to published runs.

Rates are in tera-operations per second, bandwidths in gigabytes per second (1e9) and direction, memory in GiB.
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Hardware:
    """One kind of device and the network around it (conf/hardware/*.yaml says where each number is from).

    Args:
        peak_tflops: dense 16-bit matrix products of the datasheet, in TFLOP/s.
        attention_tflops: forward attention of head size 128, by kernel, as its authors measured it.
        memory_gib: memory of one device.
        memory_gb_s: bandwidth of that memory.
        per_node: devices of a node.
        node_gb_s: bandwidth between devices of a node, per device.
        network_gb_s: bandwidth out of a node, per device.
        latency_us: of one hop of a collective operation.
        products_share: reached share of peak_tflops; fitted.
        attention_share: reached share of attention_tflops, forward and backward together; fitted.
        links_share: reached share of node_gb_s and network_gb_s; fitted.
        measured_products_tflops: what products reach on the machine at hand, in place of the first share.
        measured_attention_tflops: likewise of attention.
        measured_links_share: likewise of links.
        usable_memory: share of memory_gib that tensors may take; the rest is of the driver, NCCL and fragments.
        dollars_per_hour: of one device.
        failures_per_million_hours: unexpected stops, per device.
        compiled: blocks run fused (`torch.compile`); false where each operation reads and writes memory.
    """

    name: str
    peak_tflops: float
    attention_tflops: dict[str, float]
    memory_gib: float
    memory_gb_s: float
    per_node: int
    node_gb_s: float
    network_gb_s: float
    latency_us: float
    products_share: float
    attention_share: float
    links_share: float
    dollars_per_hour: float
    failures_per_million_hours: float
    attention_kernel: str = "flash3"
    measured_products_tflops: float | None = None
    measured_attention_tflops: float | None = None
    measured_links_share: float | None = None
    usable_memory: float = 0.92
    activation_bytes: int = 2
    compiled: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
                raise ValueError(f"hardware.{field.name}={value}: must not be negative")
        for name in ("products_share", "attention_share", "links_share", "usable_memory"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"hardware.{name}={getattr(self, name)}: must lie above 0 and at most at 1")
        if self.attention_kernel not in self.attention_tflops:
            known = ", ".join(self.attention_tflops)
            raise ValueError(f"hardware.attention_kernel={self.attention_kernel}: {self.name} knows {known}")

    @property
    def products_rate(self) -> float:
        """Operations a second that matrix products reach."""
        return 1e12 * (self.measured_products_tflops or self.peak_tflops * self.products_share)

    @property
    def attention_rate(self) -> float:
        """Operations a second that attention reaches."""
        kernel = self.attention_tflops[self.attention_kernel]
        return 1e12 * (self.measured_attention_tflops or kernel * self.attention_share)

    @property
    def memory_rate(self) -> float:
        """Bytes a second that operations on single elements read and write."""
        return 1e9 * self.memory_gb_s * STREAMED

    @property
    def usable_bytes(self) -> float:
        """Bytes of a device that tensors may take."""
        return self.memory_gib * 2**30 * self.usable_memory

    def links_rate(self, stride: int, size: int) -> float:
        """Bytes a second and device of a collective operation over `size` devices, `stride` ranks apart.

        A group that has k members in each node shares the node's network adapters with as many others, so that k
        adapters are its own; within a node it is bound by the links there.
        """
        share = self.measured_links_share or self.links_share
        if stride * size <= self.per_node:
            return 1e9 * share * self.node_gb_s
        inside = max(1, self.per_node // stride)
        return 1e9 * share * min(self.node_gb_s, inside * self.network_gb_s)

    def latency(self, stride: int, size: int) -> float:
        """Seconds that a collective operation takes however little it moves: one hop a device, then one a node."""
        inside = min(size, max(1, self.per_node // stride))
        return 1e-6 * self.latency_us * (inside - 1 + max(0, size // inside - 1))


STREAMED = 0.85  # of the memory's bandwidth; a convention, not fitted: what copy kernels usually reach
