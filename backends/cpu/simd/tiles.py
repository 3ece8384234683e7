"""The register tile: a small matrix product whose result stays in registers. Twins: `scalar.py`.

    C[i, j] (+)= sum_k A[i, k] * B[k, j]      0 <= i < MR,  0 <= j < NV * L,  0 <= k < depth

    A[i, k] = a[a_offset + i * a_row + k * a_step]        a_step = 1: rows in memory; a_row = 1: columns
    B[k, j] = b[b_offset + k * b_step + j]
    C[i, j] = c[c_offset + i * c_row + j]

The MR * NV vectors of C are accumulated over all of `depth` in registers: each step loads NV vectors of B and
broadcasts MR numbers of A into MR * NV fused multiply-adds. Every sum runs over k upwards, so the bits do not depend
on the tile's shape. MR and NV are literal: they size the generated code. The scheme is Goto and van de Geijn's
(2008), doi:10.1145/1356052.1356053.
"""
import llvmlite.ir as ir
from numba import types
from numba.extending import intrinsic

from numbanet.backends.cpu.simd.arithmetic import fma_value
from numbanet.backends.cpu.simd.memory import first_lanes, load_masked, load_value, opaque, pointer, store_masked, store_value
from numbanet.backends.cpu.simd.prefetch import SECOND, prefetch_value
from numbanet.backends.cpu.simd.types import I64, L, f32xL, llvm_type, merged_values, splat_value

UNROLL = 4      # steps of k in one turn of the loop
TOGETHER = 3    # rows of A that one address and the distance of rows reach


@intrinsic(prefer_literal=True)
def tile(typingctx, MR, NV, a, a_offset, a_row, a_step, b, b_offset, b_step, c, c_offset, c_row, depth, accumulate):
    """C[:MR, :NV*L] = A @ B, or += where `accumulate` is not 0. Float32 arrays; offsets count elements."""
    return _tile(MR, NV, (a, b, c), partial=False)


@intrinsic(prefer_literal=True)
def tile_partial(typingctx, MR, NV, a, a_offset, a_row, a_step, b, b_offset, b_step, c, c_offset, c_row, depth,
                 accumulate, last_lanes):
    """As `tile`, with only the first `last_lanes` lanes of the last vector of B read, and of C read and written."""
    return _tile(MR, NV, (a, b, c), partial=True)


@intrinsic(prefer_literal=True)
def tile_ahead(typingctx, MR, NV, a, a_offset, a_row, a_step, b, b_offset, b_step, c, c_offset, c_row, depth, accumulate, ahead):
    """As `tile`; in each turn of the loop it asks for the line of B that lies `ahead` behind, which a later product reads."""
    return _tile(MR, NV, (a, b, c), partial=False, ahead=True)


def _tile(MR, NV, arrays, partial: bool, ahead: bool = False):
    if not (isinstance(MR, types.IntegerLiteral) and isinstance(NV, types.IntegerLiteral)):
        return None
    if not all(isinstance(array, types.Array) and array.dtype == types.float32 for array in arrays):
        return None
    a, b, c = arrays
    integer = types.int64
    sig = types.void(MR, NV, a, integer, integer, integer, b, integer, integer, c, integer, integer,
                     *[integer] * (2 + partial + ahead))

    def codegen(context, builder, sig, args):
        _, _, a, a_offset, a_row, a_step, b, b_offset, b_step, c, c_offset, c_row, depth, accumulate = args[:14]
        generator = TileGenerator(builder, MR.literal_value, NV.literal_value,
                               first_lanes(builder, args[14]) if partial else None)
        generator.a = pointer(context, builder, sig.args[2], a, a_offset)
        generator.b = pointer(context, builder, sig.args[6], b, b_offset)
        generator.c = pointer(context, builder, sig.args[9], c, c_offset)
        generator.a_row, generator.a_step, generator.b_step, generator.c_row = a_row, a_step, b_step, c_row
        generator.ahead = args[14] if ahead else None
        generator.emit(depth, accumulate)
        return context.get_dummy_value()
    return sig, codegen


def _no_unrolling(module: ir.Module) -> ir.MDValue:
    """A loop's metadata: it is unrolled already, and once more would double the code and the time to compile it."""
    disable = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    loop = ir.MDValue(module, [disable], name=str(len(module.metadata)))
    loop.operands = (loop, disable)                      # a loop's node begins with itself, which makes it unique
    return loop


class TileGenerator:
    """Emits one tile. The state of its loops is (k, address in A, address in B, MR * NV accumulators)."""

    ahead = None        # floats from a step of B to what is asked for meanwhile

    def __init__(self, builder: ir.IRBuilder, rows: int, vectors: int, last_mask: ir.Value | None):
        self.builder, self.rows, self.vectors, self.last_mask = builder, rows, vectors, last_mask

    def emit(self, depth: ir.Value, accumulate: ir.Value) -> None:
        builder = self.builder
        before = builder.block
        reload, start = (builder.function.append_basic_block(f"tile.{name}") for name in ("reload", "start"))
        builder.cbranch(builder.icmp_signed("!=", accumulate, I64(0)), reload, start)

        builder.position_at_end(reload)
        old = [self._load(self._c_address(i, j), j) for i in range(self.rows) for j in range(self.vectors)]
        builder.branch(start)

        builder.position_at_end(start)
        zeros = [ir.Constant(llvm_type(f32xL), None)] * len(old)
        final = self._sums(depth, self._phis((zeros, before), (old, reload)))
        for i in range(self.rows):
            for j in range(self.vectors):
                self._store(self._c_address(i, j), final[i * self.vectors + j], j)

    def _sums(self, depth: ir.Value, begin: list, a: ir.Value | None = None, b: ir.Value | None = None) -> list:
        """The accumulators after `depth` steps from `begin` on, along A and B or from other addresses in them.

        What follows stands in a new block.
        """
        builder = self.builder
        before = builder.block
        loop, tail_check, tail, done = (
            builder.function.append_basic_block(f"tile.{name}") for name in ("loop", "tail_check", "tail", "done"))
        bases = self._bases(a or self.a)
        self.count = len(bases)
        begin = [I64(0), b or self.b, *bases, *begin]
        whole = builder.and_(depth, I64(-UNROLL))
        builder.cbranch(builder.icmp_signed(">", whole, I64(0)), loop, tail_check)

        after_loop = self._loop(loop, UNROLL, whole, begin, before, tail_check)
        builder.position_at_end(tail_check)
        state = self._phis((begin, before), (after_loop, loop))
        builder.cbranch(builder.icmp_signed("<", state[0], depth), tail, done)

        after_tail = self._loop(tail, 1, depth, state, tail_check, done)
        builder.position_at_end(done)
        return self._phis((state, tail_check), (after_tail, tail))[2 + self.count:]

    def _phis(self, *pairs):
        return merged_values(self.builder, *pairs)

    def _loop(self, block, steps, bound, entry, entry_block, after):
        """Fill `block` with `steps` steps of k, repeated while k < bound; return the state behind it."""
        self.builder.position_at_end(block)
        state = self._phis((entry, entry_block))
        result = self._steps(steps, *state)
        for phi, value in zip(state, result):
            phi.add_incoming(value, block)
        branch = self.builder.cbranch(self.builder.icmp_signed("<", result[0], bound), block, after)
        branch.set_metadata("llvm.loop", _no_unrolling(self.builder.module))
        return result

    def _bases(self, a: ir.Value) -> list:
        """Addresses of every third row of A, as values that the compiler cannot derive from each other.

        It reaches the rows between by one register that holds `a_row`. Left to itself it keeps the address of each row, for which the
        registers do not suffice, and then loads numbers long before they are needed and spills these: half of the speed.
        """
        if isinstance(self.a_row, ir.Constant):
            return [a]
        rows = [self.builder.gep(a, [self.builder.mul(self.a_row, I64(i))]) for i in range(0, self.rows, TOGETHER)]
        return [opaque(self.builder, address) for address in rows]

    def _steps(self, steps, k, b, *others):
        builder, bases, sums = self.builder, others[:self.count], list(others[self.count:])
        self._look_ahead(b, steps)
        for _ in range(steps):
            b_vectors = [self._load(builder.gep(b, [I64(L * j)]), j) for j in range(self.vectors)]
            for i in range(self.rows):
                base, row = (bases[i // TOGETHER], i % TOGETHER) if self.count > 1 else (bases[0], i)
                number = builder.load(builder.gep(base, [builder.mul(self.a_row, I64(row))]))
                broadcast = splat_value(builder, f32xL, number)
                for j, b_vector in enumerate(b_vectors):
                    sums[i * self.vectors + j] = fma_value(builder, broadcast, b_vector, sums[i * self.vectors + j])
            b, bases = self._next(b, self.b_step), [self._next(base, self.a_step) for base in bases]
        return [builder.add(k, I64(steps)), b, *bases, *sums]

    def _next(self, address: ir.Value, step: ir.Value) -> ir.Value:
        """The address of the next step; where the distance is not known, one addition, not a register for each of its multiples."""
        following = self.builder.gep(address, [step])
        return following if isinstance(step, ir.Constant) else opaque(self.builder, following)

    def _look_ahead(self, b, steps):
        """Ask for a step of what B will be later; as many tiles as a turn has steps ask for all of it, each with a distance of its own."""
        if self.ahead is not None and steps > 1:
            for line in range(0, self.vectors * L, 16):
                prefetch_value(self.builder, self.builder.gep(b, [self.builder.add(self.ahead, I64(line))]), level=SECOND)

    def _c_address(self, i, j):
        return self.builder.gep(self.c, [self.builder.add(self.builder.mul(self.c_row, I64(i)), I64(L * j))])

    def _is_partial(self, j):
        return self.last_mask is not None and j == self.vectors - 1

    def _load(self, address, j):
        if self._is_partial(j):
            return load_masked(self.builder, f32xL, address, self.last_mask)
        return load_value(self.builder, f32xL, address)

    def _store(self, address, value, j):
        if self._is_partial(j):
            store_masked(self.builder, f32xL, address, value, self.last_mask)
        else:
            store_value(self.builder, address, value)
