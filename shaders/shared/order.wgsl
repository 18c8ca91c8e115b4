// The order of f32 as unsigned integers: NaN above +inf, -0 equal to +0.

fn key_of(bits: u32) -> u32 {
    let magnitude = bits & 0x7fffffffu;
    if magnitude > 0x7f800000u {
        return 0xffffffffu;
    }
    if magnitude == 0u {
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
