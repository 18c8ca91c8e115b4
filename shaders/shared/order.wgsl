// f32 by its bits, since a shader's own comparisons may take NaN and subnormals for anything: the
// order as unsigned integers, NaN above +inf, -0 equal to +0.

fn is_nan(bits: u32) -> bool {
    return (bits & 0x7fffffffu) > 0x7f800000u;
}

fn key_of(bits: u32) -> u32 {
    if is_nan(bits) {
        return 0xffffffffu;
    }
    if (bits & 0x7fffffffu) == 0u {
        return 0x80000000u;
    }
    return select(bits ^ 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

// The bits of a value that has this key: of the equal ones +0 and the plain quiet NaN.
fn bits_of(key: u32) -> u32 {
    if key == 0xffffffffu {
        return 0x7fc00000u;
    }
    return select(~key, key ^ 0x80000000u, (key >> 31u) == 1u);
}
