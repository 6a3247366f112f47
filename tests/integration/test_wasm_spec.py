"""A part of WebAssembly's core specification, held in our workers: numbers at their edges, traps by name, memories,
tables, branches, indirect calls.

One module has a function for each instruction; a request names it and gives its operands as bits.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from functools import cache

import pytest

from tests.support.sandbox import PROFILES, Lab
from tests.support.wasm import wat

M32, M64 = 2**32, 2**64
MIN32, MAX32 = 0x80000000, 0x7FFFFFFF
MIN64, MAX64 = 0x8000000000000000, 0x7FFFFFFFFFFFFFFF

ZERO_DIVISOR = "integer_division_by_zero"
OVERFLOW = "integer_overflow"
NO_INTEGER = "bad_conversion_to_integer"
MEMORY = "memory_out_of_bounds"
TABLE = "table_out_of_bounds"
NULL = "indirect_call_to_null"
SIGNATURE = "bad_signature"


def f32(value: float) -> int:
    """The bits of a float."""
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def f64(value: float) -> int:
    """The bits of a double."""
    return int(struct.unpack("<Q", struct.pack("<d", value))[0])


INF, NAN = float("inf"), float("nan")
NAN32, NAN64 = 0x7FC00000, 0x7FF8000000000000
ANY_NAN = "nan"
"""An arithmetic NaN (§4.3.3): the quiet bit is set, the rest is free; canonical where the profile says so."""

Case = tuple[str, tuple[int, ...], int | str]

INTEGERS: list[Case] = [
    ("i32.add", (1, 1), 2),
    ("i32.add", (MAX32, 1), MIN32),
    ("i32.add", (MIN32, MIN32), 0),
    ("i32.add", (0x3FFFFFFF, 1), 0x40000000),
    ("i32.sub", (0, 1), M32 - 1),
    ("i32.sub", (MIN32, 1), MAX32),
    ("i32.sub", (MAX32, M32 - 1), MIN32),
    ("i32.mul", (0x10000000, 4096), 0),
    ("i32.mul", (MIN32, M32 - 1), MIN32),
    ("i32.mul", (0x01234567, 0x76543210), 0x358E7470),
    ("i32.div_s", (MIN32, 2), 0xC0000000),
    ("i32.div_s", (M32 - 7, 2), M32 - 3),
    ("i32.div_s", (7, M32 - 2), M32 - 3),
    ("i32.div_s", (0x80000001, 1000), 0xFFDF3B65),
    ("i32.div_s", (1, 0), ZERO_DIVISOR),
    ("i32.div_s", (MIN32, 0), ZERO_DIVISOR),
    ("i32.div_s", (MIN32, M32 - 1), OVERFLOW),
    ("i32.div_u", (M32 - 1, M32 - 1), 1),
    ("i32.div_u", (MIN32, M32 - 1), 0),
    ("i32.div_u", (0x8FF00FF0, 0x10001), 0x8FEF),
    ("i32.div_u", (M32 - 5, 2), 0x7FFFFFFD),
    ("i32.div_u", (0, 0), ZERO_DIVISOR),
    ("i32.rem_s", (MIN32, M32 - 1), 0),
    ("i32.rem_s", (M32 - 5, 2), M32 - 1),
    ("i32.rem_s", (5, M32 - 2), 1),
    ("i32.rem_s", (0x80000001, 1000), M32 - 647),
    ("i32.rem_s", (1, 0), ZERO_DIVISOR),
    ("i32.rem_u", (MIN32, M32 - 1), MIN32),
    ("i32.rem_u", (0x8FF00FF0, 0x10001), 0x8001),
    ("i32.rem_u", (1, 0), ZERO_DIVISOR),
    ("i32.shl", (1, 31), MIN32),
    ("i32.shl", (1, 32), 1),
    ("i32.shl", (0xABD1EA98, 29), 0),
    ("i32.shr_s", (MIN32, 31), M32 - 1),
    ("i32.shr_s", (M32 - 1, 32), M32 - 1),
    ("i32.shr_s", (1, MAX32), 0),
    ("i32.shr_u", (M32 - 1, 31), 1),
    ("i32.shr_u", (MIN32, 33), 0x40000000),
    ("i32.rotl", (0xABCD9876, 1), 0x579B30ED),
    ("i32.rotl", (0xFE00DC00, 4), 0xE00DC00F),
    ("i32.rotl", (1, 32), 1),
    ("i32.rotl", (0x00008000, 37), 0x00100000),
    ("i32.rotr", (1, 1), MIN32),
    ("i32.rotr", (0xFF00CC00, 1), 0x7F806600),
    ("i32.rotr", (0xB0C1D2E3, 5), 0x1D860E97),
    ("i32.and", (0xF0F0FFFF, 0xFFFFF0F0), 0xF0F0F0F0),
    ("i32.or", (0xF0F0FFFF, 0xFFFFF0F0), 0xFFFFFFFF),
    ("i32.xor", (0xF0F0FFFF, 0xFFFFF0F0), 0x0F0F0F0F),
    ("i32.clz", (0,), 32),
    ("i32.clz", (0x00008000,), 16),
    ("i32.clz", (MIN32,), 0),
    ("i32.ctz", (0,), 32),
    ("i32.ctz", (MIN32,), 31),
    ("i32.ctz", (0x00010000,), 16),
    ("i32.popcnt", (0xDEADBEEF,), 24),
    ("i32.popcnt", (0xAAAAAAAA,), 16),
    ("i32.extend8_s", (0x7F,), 127),
    ("i32.extend8_s", (0x01234580,), 0xFFFFFF80),
    ("i32.extend16_s", (0xFEDC8000,), 0xFFFF8000),
    ("i32.eqz", (0,), 1),
    ("i32.eqz", (MIN32,), 0),
    ("i32.lt_s", (MIN32, MAX32), 1),
    ("i32.lt_u", (MIN32, MAX32), 0),
    ("i32.ge_s", (M32 - 1, 1), 0),
    ("i32.ge_u", (M32 - 1, 1), 1),
    ("i64.add", (MAX64, 1), MIN64),
    ("i64.sub", (MIN64, 1), MAX64),
    ("i64.mul", (0x0123456789ABCDEF, 0xFEDCBA9876543210), 0x2236D88FE5618CF0),
    ("i64.div_s", (M64 - 7, 2), M64 - 3),
    ("i64.div_s", (MIN64, 2), 0xC000000000000000),
    ("i64.div_s", (MIN64, M64 - 1), OVERFLOW),
    ("i64.div_s", (0, 0), ZERO_DIVISOR),
    ("i64.div_u", (M64 - 1, M64 - 1), 1),
    ("i64.div_u", (1, 0), ZERO_DIVISOR),
    ("i64.rem_s", (MIN64, M64 - 1), 0),
    ("i64.rem_s", (M64 - 5, 2), M64 - 1),
    ("i64.rem_s", (1, 0), ZERO_DIVISOR),
    ("i64.rem_u", (MIN64, M64 - 1), MIN64),
    ("i64.shl", (1, 64), 1),
    ("i64.shl", (1, 63), MIN64),
    ("i64.shr_s", (MIN64, 63), M64 - 1),
    ("i64.shr_u", (M64 - 1, 63), 1),
    ("i64.rotl", (0xABCD987602468ACE, 1), 0x579B30EC048D159D),
    ("i64.rotr", (1, 1), MIN64),
    ("i64.clz", (0,), 64),
    ("i64.ctz", (MIN64,), 63),
    ("i64.popcnt", (0xDEADBEEFDEADBEEF,), 48),
    ("i64.extend8_s", (0x80,), 0xFFFFFFFFFFFFFF80),
    ("i64.extend16_s", (0x123456789ABC8000,), 0xFFFFFFFFFFFF8000),
    ("i64.extend32_s", (0xFEDCBA9880000000,), 0xFFFFFFFF80000000),
    ("i64.extend_i32_s", (MIN32,), 0xFFFFFFFF80000000),
    ("i64.extend_i32_u", (MIN32,), MIN32),
    ("i32.wrap_i64", (0xFEDCBA9876543210,), 0x76543210),
]

FLOATS: list[Case] = [
    ("f32.add", (f32(0.0), f32(-0.0)), f32(0.0)),
    ("f32.add", (f32(-0.0), f32(-0.0)), f32(-0.0)),
    ("f32.add", (f32(INF), f32(-INF)), ANY_NAN),
    ("f32.add", (1, 1), 2),
    ("f32.sub", (f32(INF), f32(INF)), ANY_NAN),
    ("f32.mul", (f32(0.0), f32(INF)), ANY_NAN),
    ("f32.mul", (f32(-0.0), f32(1.0)), f32(-0.0)),
    ("f32.div", (f32(1.0), f32(0.0)), f32(INF)),
    ("f32.div", (f32(1.0), f32(-0.0)), f32(-INF)),
    ("f32.div", (f32(0.0), f32(0.0)), ANY_NAN),
    ("f32.min", (f32(-0.0), f32(0.0)), f32(-0.0)),
    ("f32.min", (f32(0.0), f32(-0.0)), f32(-0.0)),
    ("f32.max", (f32(-0.0), f32(0.0)), f32(0.0)),
    ("f32.min", (NAN32, f32(1.0)), ANY_NAN),
    ("f32.max", (f32(1.0), NAN32), ANY_NAN),
    ("f32.sqrt", (f32(-1.0),), ANY_NAN),
    ("f32.sqrt", (f32(-0.0),), f32(-0.0)),
    ("f32.sqrt", (f32(4.0),), f32(2.0)),
    ("f32.ceil", (f32(-0.5),), f32(-0.0)),
    ("f32.floor", (f32(-0.5),), f32(-1.0)),
    ("f32.trunc", (f32(-1.9),), f32(-1.0)),
    ("f32.nearest", (f32(0.5),), f32(0.0)),
    ("f32.nearest", (f32(1.5),), f32(2.0)),
    ("f32.nearest", (f32(2.5),), f32(2.0)),
    ("f32.nearest", (f32(-0.5),), f32(-0.0)),
    ("f32.copysign", (f32(1.0), 0xFFC00000), f32(-1.0)),
    ("f32.neg", (NAN32,), 0xFFC00000),
    ("f32.neg", (0x7FA00000,), 0xFFA00000),
    ("f32.abs", (0xFFC00001,), 0x7FC00001),
    ("f32.eq", (f32(0.0), f32(-0.0)), 1),
    ("f32.eq", (NAN32, NAN32), 0),
    ("f32.ne", (NAN32, NAN32), 1),
    ("f32.lt", (f32(-INF), NAN32), 0),
    ("f64.add", (f64(0.1), f64(0.2)), 0x3FD3333333333334),
    ("f64.add", (f64(1.7976931348623157e308), f64(1.7976931348623157e308)), f64(INF)),
    ("f64.sub", (f64(-0.0), f64(0.0)), f64(-0.0)),
    ("f64.mul", (f64(5e-324), f64(0.5)), f64(0.0)),
    ("f64.div", (f64(-1.0), f64(0.0)), f64(-INF)),
    ("f64.div", (f64(1.0), f64(3.0)), 0x3FD5555555555555),
    ("f64.min", (f64(-INF), NAN64), ANY_NAN),
    ("f64.max", (f64(-0.0), f64(0.0)), f64(0.0)),
    ("f64.sqrt", (f64(2.0),), 0x3FF6A09E667F3BCD),
    ("f64.nearest", (f64(4.5),), f64(4.0)),
    ("f64.nearest", (f64(-5.5),), f64(-6.0)),
    ("f64.floor", (f64(-0.0),), f64(-0.0)),
    ("f64.copysign", (NAN64, f64(-1.0)), 0xFFF8000000000000),
    ("f64.ge", (f64(INF), NAN64), 0),
    ("f64.le", (f64(-0.0), f64(0.0)), 1),
    ("i32.trunc_f32_s", (f32(-1.9),), M32 - 1),
    ("i32.trunc_f32_s", (f32(2147483520.0),), 2147483520),
    ("i32.trunc_f32_s", (f32(-2147483648.0),), MIN32),
    ("i32.trunc_f32_s", (f32(2147483648.0),), OVERFLOW),
    ("i32.trunc_f32_s", (NAN32,), NO_INTEGER),
    ("i32.trunc_f32_u", (f32(-0.9),), 0),
    ("i32.trunc_f32_u", (f32(-1.0),), OVERFLOW),
    ("i32.trunc_f64_s", (f64(-2147483648.9),), MIN32),
    ("i32.trunc_f64_s", (f64(-2147483649.0),), OVERFLOW),
    ("i32.trunc_f64_u", (f64(4294967295.9),), M32 - 1),
    ("i32.trunc_f64_u", (f64(4294967296.0),), OVERFLOW),
    ("i64.trunc_f64_s", (f64(9223372036854774784.0),), 0x7FFFFFFFFFFFFC00),
    ("i64.trunc_f64_s", (f64(9223372036854775808.0),), OVERFLOW),
    ("i64.trunc_f64_u", (f64(18446744073709549568.0),), 0xFFFFFFFFFFFFF800),
    ("i64.trunc_f64_u", (f64(INF),), OVERFLOW),
    ("i64.trunc_f32_s", (NAN32,), NO_INTEGER),
    ("i32.trunc_sat_f32_s", (NAN32,), 0),
    ("i32.trunc_sat_f32_s", (f32(INF),), MAX32),
    ("i32.trunc_sat_f64_u", (f64(-5.0),), 0),
    ("i64.trunc_sat_f64_s", (f64(-1e300),), MIN64),
    ("i64.trunc_sat_f64_u", (f64(1e300),), M64 - 1),
    ("f32.convert_i32_s", (MIN32,), f32(-2147483648.0)),
    ("f32.convert_i32_u", (M32 - 1,), f32(4294967296.0)),
    ("f32.convert_i32_s", (16777217,), f32(16777216.0)),
    ("f32.convert_i64_u", (M64 - 1,), f32(18446744073709551616.0)),
    ("f32.convert_i64_s", (0x8000004000000001,), 0xDEFFFFFF),
    ("f64.convert_i64_u", (0x8000000000000401,), 0x43E0000000000001),
    ("f64.convert_i64_s", (MIN64,), f64(-9223372036854775808.0)),
    ("f32.demote_f64", (f64(1e300),), f32(INF)),
    ("f32.demote_f64", (f64(1e-300),), f32(0.0)),
    ("f32.demote_f64", (0x380FFFFFE0000000,), 0x00800000),
    ("f64.promote_f32", (1,), f64(2.0**-149)),
    ("i32.reinterpret_f32", (f32(1.0),), 0x3F800000),
    ("f64.reinterpret_i64", (0x3FF0000000000000,), f64(1.0)),
]

CALL_5 = "(call_indirect $t (type $one) (i32.const 4) (i32.const 5))"
CALL_6 = "(call_indirect $t (type $one) (i32.const 4) (i32.const 6))"
BODIES: dict[str, tuple[str, str, str]] = {
    "load8_s": ("i32", "i32", "(i32.load8_s (local.get 0))"),
    "load8_u": ("i32", "i32", "(i32.load8_u (local.get 0))"),
    "load16_s": ("i32", "i32", "(i32.load16_s (local.get 0))"),
    "load32": ("i32", "i32", "(i32.load (local.get 0))"),
    "load32_s": ("i32", "i64", "(i64.load32_s (local.get 0))"),
    "load64": ("i32", "i64", "(i64.load (local.get 0))"),
    "load_far": ("i32", "i32", "(i32.load offset=4294967295 (local.get 0))"),
    "load_v128": ("i32", "i64", "(i64x2.extract_lane 1 (v128.load (local.get 0)))"),
    "store8": ("i32 i32", "i32", "(i32.store8 (local.get 0) (local.get 1)) (i32.load (local.get 0))"),
    "store64": ("i32 i64", "i64", "(i64.store (local.get 0) (local.get 1)) (i64.load (local.get 0))"),
    "grow": ("i32", "i32", "(memory.grow (local.get 0))"),
    "size": ("", "i32", "(memory.size)"),
    "grown": ("i32", "i32", "(drop (memory.grow (local.get 0))) (memory.size)"),
    "fill": (
        "i32 i32 i32",
        "i64",
        "(memory.fill (local.get 0) (local.get 1) (local.get 2)) (i64.load (i32.const 2000))",
    ),
    "copy": (
        "i32 i32 i32",
        "i64",
        "(memory.copy (local.get 0) (local.get 1) (local.get 2)) (i64.load (i32.const 1000))",
    ),
    "init": (
        "i32 i32 i32",
        "i32",
        "(memory.init $s (local.get 0) (local.get 1) (local.get 2)) (i32.load (i32.const 3000))",
    ),
    "dropped": (
        "i32",
        "i32",
        "(data.drop $s) (memory.init $s (i32.const 0) (i32.const 0) (local.get 0)) (i32.const 1)",
    ),
    "indirect": ("i32 i32", "i32", "(call_indirect $t (type $one) (local.get 1) (local.get 0))"),
    "indirect_none": ("i32", "i32", "(call_indirect $t (type $none) (local.get 0))"),
    "table_size": ("", "i32", "(table.size $t)"),
    "table_grow": ("i32", "i32", "(table.grow $t (ref.func $double) (local.get 0))"),
    "table_get": ("i32", "i32", "(ref.is_null (table.get $t (local.get 0)))"),
    "table_set": (
        "i32",
        "i32",
        "(table.set $t (local.get 0) (ref.func $double)) (call_indirect $t (type $one) (i32.const 21) (local.get 0))",
    ),
    "table_fill": (
        "i32 i32",
        "i32",
        "(table.fill $t (local.get 0) (ref.func $double) (local.get 1)) " + CALL_6,
    ),
    "table_copy": (
        "i32 i32 i32",
        "i32",
        "(table.copy $t $t (local.get 0) (local.get 1) (local.get 2)) " + CALL_5,
    ),
    "table_init": (
        "i32 i32 i32",
        "i32",
        "(table.init $t $e (local.get 0) (local.get 1) (local.get 2)) " + CALL_5,
    ),
    "elem_dropped": (
        "i32",
        "i32",
        "(elem.drop $e) (table.init $t $e (i32.const 0) (i32.const 0) (local.get 0)) (i32.const 1)",
    ),
    "br_table": (
        "i32",
        "i32",
        """(block $d (block $c (block $b (block $a
             (br_table $a $b $c $d (local.get 0))) (return (i32.const 10))) (return (i32.const 11)))
             (return (i32.const 12))) (i32.const 13)""",
    ),
    "br_value": (
        "i32",
        "i32",
        """(block $o (result i32)
             (i32.add (i32.const 100) (block $i (result i32) (br_table $i $o (i32.const 7) (local.get 0)))))""",
    ),
    "select": ("i64 i64 i32", "i64", "(select (local.get 0) (local.get 1) (local.get 2))"),
    "factorial": (
        "i64",
        "i64",
        """(local $p i64) (local.set $p (i64.const 1))
           (block $e (loop $l (br_if $e (i64.eqz (local.get 0)))
             (local.set $p (i64.mul (local.get $p) (local.get 0)))
             (local.set 0 (i64.sub (local.get 0) (i64.const 1))) (br $l))) (local.get $p)""",
    ),
    "even": ("i64", "i32", "(call $even (local.get 0))"),
    "two_results": ("i32", "i32", "(local $a i32) (call $pair (local.get 0)) (local.set $a) (i32.sub (local.get $a))"),
    "global": ("i32", "i32", "(global.set $g (local.get 0)) (global.get $g)"),
    "deep": ("i32", "i32", "(call $deep (local.get 0))"),
    "unreachable": ("", "i32", "unreachable"),
    "unreachable_typed": ("i32", "i32", "(if (result i32) (local.get 0) (then (i32.const 3)) (else unreachable))"),
    "sat_add": (
        "i64 i64",
        "i64",
        "(i64x2.extract_lane 0 (i8x16.add_sat_s (i64x2.splat (local.get 0)) (i64x2.splat (local.get 1))))",
    ),
    "swizzle": (
        "i64 i64",
        "i64",
        "(i64x2.extract_lane 0 (i8x16.swizzle (i64x2.splat (local.get 0)) (i64x2.splat (local.get 1))))",
    ),
    "all_true": ("i64", "i32", "(i16x8.all_true (i64x2.splat (local.get 0)))"),
    "pmin": (
        "i64 i64",
        "i64",
        "(i64x2.extract_lane 0 (f64x2.pmin (i64x2.splat (local.get 0)) (i64x2.splat (local.get 1))))",
    ),
}
"""Parameters, result and code of what takes more than one instruction."""

PAGE = 65536
STRUCTURE: list[Case] = [
    ("load8_s", (0,), 0xFFFFFF80),
    ("load8_u", (0,), 0x80),
    ("load16_s", (0,), 0x0180),
    ("load16_s", (8,), 0xFFFFA008),
    ("load32", (1,), 0x04030201),
    ("load32_s", (6,), 0xFFFFFFFFA0080706),
    ("load64", (0,), 0x0706050403020180),
    ("load64", (PAGE - 8,), 0),
    ("load64", (PAGE - 7,), MEMORY),
    ("load8_u", (PAGE - 1,), 0),
    ("load8_u", (PAGE,), MEMORY),
    ("load32", (M32 - 1,), MEMORY),
    ("load32", (M32 - 4,), MEMORY),
    ("load_far", (0,), MEMORY),
    ("load_far", (1,), MEMORY),
    ("load_v128", (PAGE - 16,), 0),
    ("load_v128", (PAGE - 15,), MEMORY),
    ("store8", (100, 0xFFFFFF01), 1),
    ("store8", (PAGE, 1), MEMORY),
    ("store64", (PAGE - 8, 0x0123456789ABCDEF), 0x0123456789ABCDEF),
    ("store64", (PAGE - 7, 1), MEMORY),
    ("size", (), 1),
    ("grow", (0,), 1),
    ("grow", (3,), 1),
    ("grow", (65536,), M32 - 1),
    ("grow", (M32 - 1,), M32 - 1),
    ("grown", (3,), 4),
    ("grown", (65536,), 1),
    ("fill", (2000, 0x1AB, 3), 0xABABAB),
    ("fill", (PAGE, 1, 0), 0),
    ("fill", (PAGE + 1, 1, 0), MEMORY),
    ("fill", (PAGE - 1, 1, 2), MEMORY),
    ("copy", (1000, 0, 8), 0x0706050403020180),
    ("copy", (PAGE, 0, 0), 0),
    ("copy", (0, PAGE - 1, 2), MEMORY),
    ("copy", (M32 - 1, 0, 2), MEMORY),
    ("init", (3000, 1, 3), 0x006C6C65),
    ("init", (3000, 3, 3), MEMORY),
    ("init", (PAGE - 2, 0, 3), MEMORY),
    ("dropped", (0,), 1),
    ("dropped", (1,), MEMORY),
    ("indirect", (0, 21), 42),
    ("indirect", (1, 7), 49),
    ("indirect", (2, 0), SIGNATURE),
    ("indirect", (3, 0), NULL),
    ("indirect", (10, 0), TABLE),
    ("indirect", (M32 - 1, 0), TABLE),
    ("indirect_none", (2,), 5),
    ("indirect_none", (0,), SIGNATURE),
    ("table_size", (), 10),
    ("table_grow", (5,), 10),
    ("table_grow", (M32 - 1,), M32 - 1),
    ("table_get", (0,), 0),
    ("table_get", (3,), 1),
    ("table_get", (10,), TABLE),
    ("table_set", (3,), 42),
    ("table_set", (10,), TABLE),
    ("table_fill", (5, 3), 8),
    ("table_fill", (9, 2), TABLE),
    ("table_fill", (10, 0), NULL),
    ("table_copy", (5, 0, 2), 8),
    ("table_copy", (5, 1, 1), 16),
    ("table_copy", (9, 0, 2), TABLE),
    ("table_init", (5, 1, 1), 16),
    ("table_init", (5, 1, 2), TABLE),
    ("elem_dropped", (0,), 1),
    ("elem_dropped", (1,), TABLE),
    ("br_table", (0,), 10),
    ("br_table", (1,), 11),
    ("br_table", (2,), 12),
    ("br_table", (3,), 13),
    ("br_table", (M32 - 1,), 13),
    ("br_value", (0,), 107),
    ("br_value", (1,), 7),
    ("br_value", (99,), 7),
    ("select", (1, 2, 0), 2),
    ("select", (1, 2, MIN32), 1),
    ("factorial", (25,), 7034535277573963776),
    ("even", (100,), 44),
    ("even", (77,), 99),
    ("two_results", (5,), 1),
    ("global", (M32 - 1,), M32 - 1),
    ("deep", (1000,), 1000),
    ("deep", (M32 - 1,), "stack_overflow"),
    ("unreachable", (), "unreachable"),
    ("unreachable_typed", (1,), 3),
    ("unreachable_typed", (0,), "unreachable"),
    ("sat_add", (0x7F7F7F7F7F7F7F7F, 0x0101010101010101), 0x7F7F7F7F7F7F7F7F),
    ("swizzle", (0x8877665544332211, 0x10FF000102030405), 0x0000112233445566),
    ("all_true", (0x0001000100010001,), 1),
    ("all_true", (0x0001000000010001,), 0),
    ("pmin", (f64(0.0), f64(-0.0)), f64(0.0)),
    ("pmin", (NAN64, f64(1.0)), NAN64),
]

CASES = INTEGERS + FLOATS + STRUCTURE


def _types(name: str) -> tuple[list[str], str]:
    """Types of the operands and of the result of an instruction."""
    if name in BODIES:
        params, result, _ = BODIES[name]
        return params.split(), result
    kind, operation = name.split(".")
    count = next(len(args) for each, args, _ in CASES if each == name)
    operand = kind
    for other in ("i32", "i64", "f32", "f64"):
        if operation.endswith((f"_{other}", f"_{other}_s", f"_{other}_u")):
            operand = other
    compares = operation.split("_")[0] in ("eq", "ne", "lt", "gt", "le", "ge", "eqz")
    return [operand] * count, "i32" if compares else kind


INTO = {
    "i32": "(i32.wrap_i64 {})",
    "i64": "{}",
    "f32": "(f32.reinterpret_i32 (i32.wrap_i64 {}))",
    "f64": "(f64.reinterpret_i64 {})",
}
FROM = {
    "i32": "(i64.extend_i32_u {})",
    "i64": "{}",
    "f32": "(i64.extend_i32_u (i32.reinterpret_f32 {}))",
    "f64": "(i64.reinterpret_f64 {})",
}
AT = 4096


@cache
def names() -> list[str]:
    return sorted({name for name, _, _ in CASES})


@cache
def module() -> bytes:
    """A function for each instruction, and one that finds it by its number."""
    functions, targets = [], []
    for number, name in enumerate(names()):
        params, result = _types(name)
        given = " ".join(
            INTO[kind].format(f"(i64.load offset={8 * n + 8} (i32.const {AT}))") for n, kind in enumerate(params)
        )
        if name in BODIES:
            declared = f"(param {' '.join(params)})" if params else ""
            functions.append(f"(func $op.{name} {declared} (result {result}) {BODIES[name][2]})")
            call = f"(call $op.{name} {given})"
        else:
            call = f"({name} {given})"
        functions.append(f"(func $run{number} (type $run) {FROM[result].format(call)})")
        targets.append(f"$run{number}")
    return wat(
        f"""(module
          (type $run (func (result i64))) (type $one (func (param i32) (result i32))) (type $none (func (result i32)))
          (memory (export "memory") 1) (global $g (mut i32) (i32.const 0))
          (data (i32.const 0) "\\80\\01\\02\\03\\04\\05\\06\\07\\08\\a0") (data $s "hello")
          (table $runs {len(targets)} funcref) (elem (table $runs) (i32.const 0) func {" ".join(targets)})
          (table $t 10 10000 funcref) (elem (table $t) (i32.const 0) func $double $square $five)
          (elem $e func $double $square)
          (func $double (param i32) (result i32) (i32.mul (local.get 0) (i32.const 2)))
          (func $square (param i32) (result i32) (i32.mul (local.get 0) (local.get 0)))
          (func $five (result i32) (i32.const 5))
          (func $even (param i64) (result i32) (if (result i32) (i64.eqz (local.get 0)) (then (i32.const 44))
            (else (call $odd (i64.sub (local.get 0) (i64.const 1))))))
          (func $odd (param i64) (result i32) (if (result i32) (i64.eqz (local.get 0)) (then (i32.const 99))
            (else (call $even (i64.sub (local.get 0) (i64.const 1))))))
          (func $pair (param i32) (result i32 i32) (local.get 0) (i32.sub (local.get 0) (i32.const 1)))
          (func $deep (param i32) (result i32) (if (result i32) (local.get 0)
            (then (i32.add (call $deep (i32.sub (local.get 0) (i32.const 1))) (i32.const 1))) (else (i32.const 0))))
          {" ".join(functions)}
          (func (export "alloc") (param i32) (result i32) (i32.const {AT}))
          (func (export "handle") (param i32 i32) (result i64)
            (i64.store (i32.const {AT}) (call_indirect $runs (type $run) (i32.load (i32.const {AT}))))
            (i64.const {AT << 32 | 8})))"""
    )


@pytest.fixture(scope="module", params=PROFILES)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, str]]:
    made = Lab(tmp_path_factory.mktemp("cache"))
    yield made, request.param
    made.close()


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: f"{CASES[n][0]}-{n}")
def test_an_instruction_does_what_the_specification_says(lab: tuple[Lab, str], number: int) -> None:
    name, args, expected = CASES[number]
    worker, profile = lab
    data = struct.pack(f"<{len(args) + 1}Q", names().index(name), *args)
    report = worker.run(module(), data, entry="reactor", profile=profile, deterministic=False)
    if isinstance(expected, str) and expected != ANY_NAN:
        assert (report.kind, report.trap) == ("trap", expected)
        return
    assert report.kind == "exit", report
    (found,) = struct.unpack("<Q", report.output)
    if expected != ANY_NAN:
        assert hex(found) == hex(int(expected))
        return
    wide = _types(name)[1] == "f64"
    value = struct.unpack("<d", report.output)[0] if wide else struct.unpack("<f", report.output[:4])[0]
    assert math.isnan(value)
    quiet = NAN64 if wide else NAN32
    assert found & quiet == quiet
    if profile == "metered":
        assert found == quiet


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 150
    assert len(set(map(str, CASES))) == len(CASES)
