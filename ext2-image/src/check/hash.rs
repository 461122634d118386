//! The hashes of names in the trees of directories (Linux: fs/ext4/hash.c), of which ext2 itself has no use.

/// Hashes names as a directory has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hasher {
    /// `dx_root_info.hash_version`: 0 the first one, 1 half of MD4, 2 TEA.
    pub(crate) version: u8,
    /// Whether bytes of names are numbers without a sign (`s_flags`).
    pub(crate) unsigned: bool,
    /// `s_hash_seed`; all zeros for that of MD4.
    pub(crate) seed: [u32; 4],
}

impl Hasher {
    /// The hash of a name: an even number.
    pub(crate) fn hash(&self, name: &[u8]) -> u32 {
        let mut state = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
        if self.seed != [0; 4] {
            state = self.seed;
        }
        let hash = match self.version {
            1 => {
                let mut rest = name;
                while !rest.is_empty() {
                    half_md4(&mut state, self.words(rest));
                    rest = rest.get(32..).unwrap_or_default();
                }
                state[1]
            }
            2 => {
                let mut rest = name;
                while !rest.is_empty() {
                    tea(&mut state, self.words(rest));
                    rest = rest.get(16..).unwrap_or_default();
                }
                state[0]
            }
            _ => self.first(name),
        };
        hash & !1
    }

    /// A byte of a name as a number.
    fn number(&self, byte: u8) -> u32 {
        // OK to cast: the sign is kept.
        if self.unsigned { byte.into() } else { i32::from(byte.cast_signed()).cast_unsigned() }
    }

    /// The next bytes of a name in words, filled up with what says how many there were.
    fn words<const N: usize>(&self, name: &[u8]) -> [u32; N] {
        // OK to cast: a name has at most 255 bytes.
        let len = name.len() as u32;
        let fill = len | len << 8;
        let fill = fill | fill << 16;
        let mut words = [fill; N];
        for (word, bytes) in words.iter_mut().zip(name.chunks(4)) {
            *word = bytes.iter().fold(fill, |word, &byte| self.number(byte).wrapping_add(word << 8));
        }
        words
    }

    fn first(&self, name: &[u8]) -> u32 {
        let (mut last, mut before) = (0x12a3_fe2du32, 0x37ab_e8f9u32);
        for &byte in name {
            let mut next = before.wrapping_add(last ^ self.number(byte).wrapping_mul(7_152_373));
            if next & 0x8000_0000 != 0 {
                next = next.wrapping_sub(0x7fff_ffff);
            }
            (last, before) = (next, last);
        }
        last << 1
    }
}

fn half_md4(state: &mut [u32; 4], words: [u32; 8]) {
    let [mut a, mut b, mut c, mut d] = *state;
    let mut round = |order: [usize; 8], shifts: [u32; 4], add: u32, mix: fn(u32, u32, u32) -> u32| {
        for (nr, index) in order.into_iter().enumerate() {
            let word = words.get(index).copied().unwrap_or(0).wrapping_add(add);
            let sum = a.wrapping_add(mix(b, c, d)).wrapping_add(word);
            let turned = sum.rotate_left(shifts.get(nr % 4).copied().unwrap_or(0));
            (a, b, c, d) = (d, turned, b, c);
        }
    };
    round([0, 1, 2, 3, 4, 5, 6, 7], [3, 7, 11, 19], 0, |x, y, z| z ^ (x & (y ^ z)));
    round([1, 3, 5, 7, 0, 2, 4, 6], [3, 5, 9, 13], 0x5a82_7999, |x, y, z| (x & y).wrapping_add((x ^ y) & z));
    round([3, 7, 2, 6, 1, 5, 0, 4], [3, 9, 11, 15], 0x6ed9_eba1, |x, y, z| x ^ y ^ z);
    for (word, add) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(add);
    }
}

fn tea(state: &mut [u32; 4], key: [u32; 4]) {
    let [k0, k1, k2, k3] = key;
    let [mut x, mut y, ..] = *state;
    let mut sum = 0u32;
    for _ in 0..16 {
        sum = sum.wrapping_add(0x9e37_79b9);
        let mix = |v: u32, a: u32, b: u32, sum: u32| {
            (v << 4).wrapping_add(a) ^ v.wrapping_add(sum) ^ (v >> 5).wrapping_add(b)
        };
        x = x.wrapping_add(mix(y, k0, k1, sum));
        y = y.wrapping_add(mix(x, k2, k3, sum));
    }
    let [first, second, ..] = state;
    *first = first.wrapping_add(x);
    *second = second.wrapping_add(y);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_that_debugfs_prints() {
        // debugfs -R 'dx_hash -h VERSION -s SEED NAME'
        let seed = [0x0403_0201, 0x0807_0605, 0x0c0b_0a09, 0x100f_0e0d];
        let hash = |version, seed, name: &[u8]| Hasher { version, unsigned: false, seed }.hash(name);
        assert_eq!(hash(0, [0; 4], b"lost+found"), 0x5e2a_ba24);
        assert_eq!(hash(1, [0; 4], b"lost+found"), 0x591d_e422);
        assert_eq!(hash(2, [0; 4], b"lost+found"), 0x2dbf_9e80);
        assert_eq!(hash(1, seed, b"a name that is longer than thirty-two bytes"), 0x35be_7e7c);
        assert_eq!(hash(2, seed, b"a name that is longer than thirty-two bytes"), 0x90fd_02fc);
    }
}
