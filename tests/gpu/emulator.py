"""Executes the PTX that Triton compiles, without a GPU: several thread blocks at a time, in numpy.

It sees what Triton's interpreter cannot: layouts, shuffles, reads of shared memory that nobody
wrote, races between warps, barriers that not all threads reach, addresses outside of the tensors
or not aligned, and memory that two blocks write. The order of warps is that of their numbers.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
BLOCKS = 16  # at a time
UNSIGNED: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}
SIGNED: dict[int, Any] = {1: np.int8, 2: np.int16, 4: np.int32, 8: np.int64}
FLOAT: dict[int, Any] = {2: np.float16, 4: np.float32, 8: np.float64}
COMPARE = {
    **{'eq': np.equal, 'ne': np.not_equal, 'lt': np.less, 'le': np.less_equal},
    **{'gt': np.greater, 'ge': np.greater_equal},
    **{'lo': np.less, 'ls': np.less_equal, 'hi': np.greater, 'hs': np.greater_equal},
}
LOGIC = {'and': np.bitwise_and, 'or': np.bitwise_or, 'xor': np.bitwise_xor}
ARITHMETIC = {'add': np.add, 'sub': np.subtract, 'mul': np.multiply, **LOGIC}
UNARY = {
    **{'neg': np.negative, 'abs': np.abs, 'not': np.invert},
    'ex2': lambda a: np.exp2(a.astype(np.float64)).astype(np.float32),
    'lg2': lambda a: np.log2(a.astype(np.float64)).astype(np.float32),
    'rcp': np.reciprocal,
    'popc': lambda a: np.unpackbits(a[:, None].view(np.uint8), 1).sum(1).astype(a.dtype),
}
Instruction = tuple[tuple[str, bool] | None, list[str], list[str], str]


class Fault(Exception):
    """What a GPU would not do, or what is not emulated."""


def width(kind: str) -> int:
    """Bytes of a type: 4 of f32."""
    return int(kind.lstrip('bufsx').split('x')[0]) // 8


def numpy_type(kind: str) -> Any:
    table = FLOAT if kind[0] == 'f' else SIGNED if kind[0] == 's' else UNSIGNED
    return table[width(kind)]


def to_bfloat16(values: Array) -> Array:
    """Bits, rounded to even."""
    bits = values.astype(np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FFF), rounded)


def split(operands: str) -> list[str]:
    """At the commas outside of braces and brackets."""
    return [o.strip() for o in re.split(r',(?![^{\[]*[}\]])', operands) if o.strip()]


def parse(ptx: str, kernel: str) -> tuple[int, list[Instruction], dict[str, int]]:
    """(threads, instructions, where each label stands)."""
    head, body = ptx[ptx.index(f'.entry {kernel}(') :].split('{', 1)
    threads = re.search(r'\.(?:reqntid|maxntid)\s+(\d+)', head)
    assert threads
    code: list[Instruction] = []
    labels = {}
    for line in re.sub(r'//[^\n]*', '', body).splitlines():
        line = line.strip()
        if line == '}':
            break
        label = re.match(r'(\$\w+):\s*(.*)', line)
        if label:
            labels[label[1]] = len(code)
            line = label[2]
        for text in filter(None, map(str.strip, line.split(';'))):
            if text[0] in '.{}':
                continue
            guard = None
            guarded = re.match(r'@(!?)(%\w+)\s+(.*)', text)
            if guarded:
                guard, text = (guarded[2], bool(guarded[1])), guarded[3]
            opcode, *operands = text.split(None, 1)
            code.append((guard, opcode.split('.'), split(*operands) if operands else [], text))
    return int(threads[1]), code, labels


class Memory:
    """Tensors by their addresses."""

    def __init__(self, tensors: dict[int, Array]) -> None:
        self.starts = sorted(tensors)
        self.bytes = [tensors[start] for start in self.starts]
        self.was_read = [np.zeros(len(b), bool) for b in self.bytes]
        self.writer = [np.full(len(b), -1, np.int64) for b in self.bytes]

    def traffic(self) -> int:
        """Bytes that have been read or written, each once."""
        written = sum(int((w >= 0).sum()) for w in self.writer)
        return written + sum(int(r.sum()) for r in self.was_read)

    def at(self, addresses: Array, size: int, text: str) -> list[tuple[int, Array, Array]]:
        """(tensor, which of the addresses are in it, the bytes there) of each."""
        found = []
        tensor = np.searchsorted(np.array(self.starts, np.uint64), addresses, side='right') - 1
        for i in np.unique(tensor):
            which = np.flatnonzero(tensor == i)
            offsets = (addresses[which] - np.uint64(self.starts[i])).astype(np.int64)
            if i < 0 or offsets.max() + size > len(self.bytes[i]):
                raise Fault(f'outside of the tensors: {text}')
            found.append((int(i), which, offsets[:, None] + np.arange(size)))
        return found


class Emulator:
    """Of one kernel. ``faults`` are races and the like, which do not end the execution."""

    def __init__(self, ptx: str, kernel: str, shared: int) -> None:
        self.threads, self.code, self.labels = parse(ptx, kernel)
        self.size = max(shared, 16)
        self.faults: set[str] = set()

    def launch(self, blocks: int, arguments: list[int], memory: Memory) -> None:
        self.arguments, self.memory = arguments, memory
        for first in range(0, blocks, BLOCKS):
            self.run(np.arange(first, min(first + BLOCKS, blocks)))

    def run(self, blocks: Array) -> None:
        self.count = len(blocks) * self.threads
        self.thread = np.tile(np.arange(self.threads), len(blocks))
        self.block = np.repeat(blocks, self.threads)
        self.place = np.repeat(np.arange(len(blocks)), self.threads)
        self.warp = self.thread // 32
        self.registers: dict[str, Array] = {}
        size = len(blocks) * self.size
        self.shared = np.zeros(size, np.uint8)
        self.initialised = np.zeros(size, bool)
        # By which warp each byte was written and read last, and between which barriers.
        self.wrote, self.wrote_in, self.read, self.read_in = np.full((4, size), -1)
        self.epoch = np.zeros(len(blocks), np.int64)
        at, end = np.zeros(self.count, np.int64), len(self.code)
        while (first := at.min()) < end:
            guard, opcode, operands, text = self.code[first]
            active = at == first
            mask = active
            if guard is not None:
                mask = active & (self.registers[guard[0]] ^ guard[1])
            at[active] += 1
            if opcode[0] == 'bra':
                at[mask] = self.labels[operands[0]]
            elif opcode[0] in ('ret', 'exit'):
                at[mask] = end
            elif mask.any():
                try:
                    with np.errstate(all='ignore'):
                        self.step(opcode, operands, mask, text)
                except (AssertionError, LookupError, ValueError, TypeError) as error:
                    raise Fault(f'{text}: {type(error).__name__} {error}') from error

    def value(self, operand: str, kind: str) -> Array:
        """An operand of every thread, as that type."""
        held = self.registers.get(operand)
        if held is not None:
            if kind == 'pred' or held.dtype == bool:
                return held
            if kind == 'bf16':
                return (held.astype(np.uint32) << 16).view(np.float32)
            wanted = numpy_type(kind)
            if held.dtype.itemsize != np.dtype(wanted).itemsize:
                held = held.astype(UNSIGNED[np.dtype(wanted).itemsize])
            return held.view(wanted)
        special = {
            **{'%tid.x': self.thread, '%ctaid.x': self.block, '%laneid': self.thread % 32},
            '%ntid.x': self.threads,
            **dict.fromkeys(('%tid.y', '%tid.z', '%ctaid.y', '%ctaid.z', 'global_smem'), 0),
        }
        if operand in special:
            return np.broadcast_to(special[operand], self.count).astype(numpy_type(kind))
        if re.fullmatch(r'0[fFdD][0-9a-fA-F]+', operand):
            bits = bytes.fromhex(operand[2:])
            number: Any = struct.unpack('>f' if len(bits) == 4 else '>d', bits)[0]
            constant = np.full(self.count, number, FLOAT[len(bits)])
            return constant.view(numpy_type(kind))
        integer = int(operand.rstrip('U'), 0)
        if kind == 'pred':
            return np.full(self.count, bool(integer))
        integer &= (1 << 8 * width(kind)) - 1
        return np.full(self.count, integer, UNSIGNED[width(kind)]).view(numpy_type(kind))

    def put(self, register: str, value: Array, mask: Array) -> None:
        if register == '_':
            return
        if value.dtype != bool:
            value = np.ascontiguousarray(value).view(UNSIGNED[value.dtype.itemsize])
        held = self.registers.get(register)
        if held is None or mask.all():
            self.registers[register] = value.copy()
        else:
            self.registers[register] = np.where(mask, value, held.astype(value.dtype))

    def address(self, operand: str) -> Array:
        base, offset = re.fullmatch(r'\[\s*([%\w.]+)\s*(?:\+\s*(-?\w+))?\s*\]', operand).groups()
        return self.value(base, 'u64') + np.uint64(int(offset or '0', 0) & (2**64 - 1))

    def step(self, opcode: list[str], operands: list[str], mask: Array, text: str) -> None:
        name, kind = opcode[0], opcode[-1]
        if name in ('bar', 'barrier'):
            reached = mask.reshape(-1, self.threads)
            if (reached.any(1) != reached.all(1)).any():
                raise Fault(f'not all threads reach a barrier: {text}')
            self.epoch[reached.all(1)] += 1
        elif name == 'st':
            size = width(kind)
            parts = [self.value(o, f'b{8 * size}') for o in split(operands[1].strip('{}'))]
            written = np.stack(parts, 1).view(np.uint8)
            self.write(opcode[1], self.address(operands[0]), written, mask, text)
        elif name == 'stmatrix':
            start = self.address(operands[0])
            for i, operand in enumerate(split(operands[1].strip('{}'))):
                halves = self.value(operand, 'b32').view(np.uint8).reshape(-1, 2, 2)
                for k, at in enumerate(self.matrix(i, start, 'trans' in opcode)):
                    self.write('shared', at, halves[:, k], mask, text)
        else:
            names = split(operands[0].strip('{}'))
            results = self.results(name, opcode, operands, mask, text)
            for register, result in zip(names, results, strict=True):
                self.put(register.split('|')[0], result, mask)

    def results(
        self, name: str, opcode: list[str], operands: list[str], mask: Array, text: str
    ) -> list[Array]:
        """What an instruction writes to registers."""
        kind, inputs = opcode[-1], operands[1:]
        if name == 'ld' and opcode[1] == 'param':
            number = re.search(r'_param_(\d+)', inputs[0])
            assert number
            argument = self.arguments[int(number[1])] & ((1 << 8 * width(kind)) - 1)
            return [np.full(self.count, argument, UNSIGNED[width(kind)])]
        if name == 'ldmatrix':
            start, found = self.address(inputs[0]), []
            for i in range(len(split(operands[0].strip('{}')))):
                places = self.matrix(i, start, 'trans' in opcode)
                halves = [self.load('shared', at, 2, mask, text) for at in places]
                found.append(np.concatenate(halves, 1).view(np.uint32)[:, 0])
            return found
        if name == 'ld':
            number_of = len(split(operands[0].strip('{}')))
            size = width(kind)
            read = self.load(opcode[1], self.address(inputs[0]), size * number_of, mask, text)
            parts = np.ascontiguousarray(read).view(UNSIGNED[size])
            if size == 1:
                parts = (parts.view(np.int8) if kind == 's8' else parts).astype(np.int16)
            return [parts[:, i] for i in range(number_of)]
        if name == 'mov' and operands[0][0] == '{':
            whole = self.value(inputs[0], f'b{8 * width(kind)}')
            number_of = len(split(operands[0].strip('{}')))
            parts = whole.view(UNSIGNED[width(kind) // number_of]).reshape(-1, number_of)
            return [parts[:, i] for i in range(number_of)]
        if name == 'mov' and inputs[0][0] == '{':
            sources = split(inputs[0].strip('{}'))
            each = f'b{8 * width(kind) // len(sources)}'
            joined = np.stack([self.value(s, each) for s in sources], 1)
            return [joined.view(UNSIGNED[width(kind)])[:, 0]]
        if name in ('mov', 'cvta'):
            return [self.value(inputs[0], kind)]
        if name == 'shfl':
            assert opcode[2] == 'bfly'
            lane = np.arange(self.count)
            source = lane ^ int(self.value(inputs[1], 'u32')[0])
            if not mask[source][mask].all():
                raise Fault(f'a shuffle from an inactive lane: {text}')
            return [self.value(inputs[0], 'b32')[source]]
        if name == 'redux':
            assert mask.all()
            lanes = self.value(inputs[0], kind).reshape(-1, 32)
            reduce = {'add': np.add, 'min': np.minimum, 'max': np.maximum}[opcode[2]].reduce
            return [np.repeat(reduce(lanes, 1, dtype=lanes.dtype), 32)]
        if name == 'setp':
            compared = self.compare(opcode[1], *(self.value(i, kind) for i in inputs[:2]))
            if len(inputs) > 2:
                compared = LOGIC[opcode[2]](compared, self.value(inputs[2], 'pred'))
            return [compared]
        if name == 'selp':
            chosen = self.value(inputs[2], 'pred')
            return [np.where(chosen, *(self.value(i, kind) for i in inputs[:2]))]
        if name == 'cvt':
            return [self.convert(opcode, inputs)]
        return [self.arithmetic(name, opcode, inputs)]

    def arithmetic(self, name: str, opcode: list[str], inputs: list[str]) -> Array:
        kind = opcode[-1]
        a, *rest = (self.value(i, kind) for i in inputs)
        if name in UNARY:
            return UNARY[name](a)
        if name in ('shl', 'shr'):
            by, bits = self.value(inputs[1], 'u32'), 8 * width(kind)
            shifted = (np.left_shift if name == 'shl' else np.right_shift)(
                a, np.minimum(by, bits - 1).astype(a.dtype)
            )
            keeps_sign = name == 'shr' and kind[0] == 's'
            return shifted if keeps_sign else np.where(by >= bits, 0, shifted).astype(a.dtype)
        b = rest[0]
        if name == 'fma':
            return (a.astype(np.float64) * b + rest[1]).astype(a.dtype)
        if name in ('mul', 'mad') and kind[0] in 'us':
            wide = SIGNED[8] if kind[0] == 's' else UNSIGNED[8]
            if opcode[1] == 'wide':
                product = a.astype(wide) * b.astype(wide)
                return product + self.value(inputs[2], f'{kind[0]}64') if rest[1:] else product
            if opcode[1] == 'hi':
                assert width(kind) == 4
                return (a.astype(wide) * b.astype(wide) >> 32).astype(a.dtype)
            return a * b + rest[1] if name == 'mad' else a * b
        if name == 'bfe':
            first, length = (int(self.value(i, 'u32')[0]) for i in inputs[1:])
            above = 8 * width(kind) - length
            # Of a signed type the field's highest bit is its sign.
            return np.right_shift(np.left_shift(a, above - first), above)
        if name in ('div', 'rem'):
            if kind[0] == 'f':
                return a / b
            b = np.where(b == 0, 1, b).astype(a.dtype)
            remainder = np.fmod(a, b)  # truncates, as the quotient does
            return remainder if name == 'rem' else (a - remainder) // b
        if name in ('min', 'max'):
            ignores_nan = kind[0] == 'f' and 'NaN' not in opcode
            least = np.fmin if ignores_nan else np.minimum
            return (least if name == 'min' else np.fmax if ignores_nan else np.maximum)(a, b)
        return ARITHMETIC[name](a, b)

    @staticmethod
    def compare(relation: str, a: Array, b: Array) -> Array:
        """A relation ending in u also holds of NaN."""
        unordered = np.isnan(a) | np.isnan(b) if a.dtype.kind == 'f' else np.zeros(len(a), bool)
        if relation in ('num', 'nan'):
            return unordered if relation == 'nan' else ~unordered
        if relation in COMPARE:
            return COMPARE[relation](a, b) & ~unordered
        return COMPARE[relation[:-1]](a, b) | unordered

    def convert(self, opcode: list[str], inputs: list[str]) -> Array:
        to, from_ = opcode[-2:]
        if to in ('f16x2', 'bf16x2'):
            high, low = (self.value(i, from_) for i in inputs)
            bits = to_bfloat16 if to[0] == 'b' else lambda v: v.astype(np.float16).view(np.uint16)
            return (bits(high).astype(np.uint32) << 16) | bits(low)
        value = self.value(inputs[0], from_)
        return to_bfloat16(value) if to == 'bf16' else value.astype(numpy_type(to))

    def matrix(self, i: int, start: Array, transposed: bool) -> Iterator[Array]:
        """Where the two numbers of each thread are in matrix i of ldmatrix and stmatrix.

        Lane l of a warp has those of row l / 4 of 8 x 8 numbers of 16 bits, or of column l / 4, and
        lane 8 i + r knows where row r of matrix i starts.
        """
        lane = np.arange(self.count)
        warp, outer, inner = lane & ~31, lane % 32 // 4, 2 * (lane % 4)
        for k in range(2):
            row, column = (inner + k, outer) if transposed else (outer, inner + k)
            yield start[warp + 8 * i + row] + (2 * column).astype(np.uint64)

    def load(self, space: str, addresses: Array, size: int, mask: Array, text: str) -> Array:
        out = np.zeros((self.count, size), np.uint8)
        if space.startswith('shared'):
            at, warp, epoch = self.in_shared(addresses, size, mask, text)
            if not self.initialised[at].all():
                self.faults.add(f'reads shared memory that nobody wrote: {text}')
            if ((self.wrote_in[at] == epoch) & (self.wrote[at] != warp)).any():
                self.faults.add(f'reads what another warp wrote, without a barrier: {text}')
            # One reading warp is remembered; a second one as -2.
            other = (self.read_in[at] == epoch) & (self.read[at] != warp)
            self.read[at], self.read_in[at] = np.where(other, -2, warp), epoch
            out[mask] = self.shared[at]
            return out
        self.check_alignment(addresses[mask], size, text)
        threads = np.flatnonzero(mask)
        for tensor, which, at in self.memory.at(addresses[mask], size, text):
            out[threads[which]] = self.memory.bytes[tensor][at]
            self.memory.was_read[tensor][at] = True
        return out

    def write(self, space: str, addresses: Array, data: Array, mask: Array, text: str) -> None:
        size = data.shape[1]
        if space.startswith('shared'):
            at, warp, epoch = self.in_shared(addresses, size, mask, text)
            if ((self.read_in[at] == epoch) & (self.read[at] != warp)).any():
                self.faults.add(f'writes what another warp reads, without a barrier: {text}')
            others = (self.wrote_in[at] == epoch) & (self.wrote[at] != warp)
            if (others & (self.shared[at] != data[mask])).any():
                self.faults.add(f'two warps write without a barrier: {text}')
            self.shared[at], self.initialised[at] = data[mask], True
            self.wrote[at], self.wrote_in[at] = warp, epoch
            return
        self.check_alignment(addresses[mask], size, text)
        threads = np.flatnonzero(mask)
        for tensor, which, at in self.memory.at(addresses[mask], size, text):
            block = self.block[threads[which]][:, None]
            writer = self.memory.writer[tensor]
            if ((writer[at] >= 0) & (writer[at] != block)).any():
                self.faults.add(f'two blocks write to one address: {text}')
            writer[at] = block
            self.memory.bytes[tensor][at] = data[threads[which]]

    def in_shared(
        self, addresses: Array, size: int, mask: Array, text: str
    ) -> tuple[Array, Array, Array]:
        """(the bytes, the warp that each thread is in, and after how many barriers it is)."""
        self.check_alignment(addresses[mask], size, text)
        at = addresses[mask].astype(np.int64)[:, None] + np.arange(size)
        if at.min() < 0 or at.max() >= self.size:
            raise Fault(f'outside of shared memory: {text}')
        place = self.place[mask][:, None]
        warp = np.broadcast_to(self.warp[mask][:, None], at.shape)
        return at + place * self.size, warp, np.broadcast_to(self.epoch[place], at.shape)

    @staticmethod
    def check_alignment(addresses: Array, size: int, text: str) -> None:
        if (addresses % np.uint64(size)).any():
            raise Fault(f'not aligned to {size} bytes: {text}')
