//! Text blocks: a function of the text alone.

use std::io::{self, Read};

use inscape::capture::text::{Error, MAX_BLOCK, MIN_BLOCK, TextBlock, TextBlocks, TextMark};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::says;

/// Hands a text over in pieces of the given sizes, over and over, with an interruption at times.
struct Dribble<'a> {
    text: &'a [u8],
    sizes: Vec<usize>,
    turn: usize,
}

impl Read for Dribble<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.turn += 1;
        if self.turn.is_multiple_of(7) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let size = self.sizes[self.turn % self.sizes.len()].min(out.len());
        self.text
            .take(size as u64)
            .read(out)
            .inspect(|&n| self.text = &self.text[n..])
    }
}

fn blocks(text: &[u8]) -> Result<Vec<TextBlock>, Error> {
    TextBlocks::new(text, "t").collect()
}

/// A text of about `size` bytes; each character is a break with the given odds in a million.
fn text(size: usize, newline: u32, space: u32, seed: u64) -> String {
    let mut state = seed | 1;
    let mut draw = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32 % 1_000_000
    };
    let mut text = String::with_capacity(size + 4);
    while text.len() < size {
        let n = draw();
        text.push(match n {
            n if n < newline => '\n',
            n if n < newline + space => ' ',
            n => ['a', 'ß', '語', '🐳'][n as usize % 4],
        });
    }
    text
}

/// What must hold for the blocks of any text.
fn check(text: &str, blocks: &[TextBlock]) -> Result<(), String> {
    let mut end = 0;
    for (i, block) in blocks.iter().enumerate() {
        if block.start as usize != end || text.get(end..end + block.text.len()) != Some(&block.text)
        {
            return Err(format!("block {i} is not the text at {end}"));
        }
        end += block.text.len();
        let short = block.text.len() < MIN_BLOCK && i + 1 < blocks.len();
        if short || block.text.is_empty() || block.text.len() > MAX_BLOCK {
            return Err(format!("block {i} has {} bytes", block.text.len()));
        }
    }
    if end == text.len() {
        Ok(())
    } else {
        Err(format!("the blocks end at {end}"))
    }
}

fn odds() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(1), Just(20), Just(20_000)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn blocks_depend_on_the_text_alone(
        size in prop_oneof![0usize..200, 0usize..200_000, 0usize..3_500_000],
        newline in odds(), space in odds(), seed: u64,
        sizes in prop::collection::vec(prop_oneof![1000usize..5000, 1usize..300_000], 1..5),
    ) {
        let text = text(size, newline, space, seed);
        let whole = blocks(text.as_bytes()).unwrap();
        let dribble = Dribble { text: text.as_bytes(), sizes, turn: 0 };
        let mut reader = TextBlocks::new(dribble, "t");
        let dribbled: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
        prop_assert_eq!(check(&text, &whole), Ok(()));
        prop_assert!(whole == dribbled);
        let sha256 = format!("{:x}", Sha256::digest(&text));
        prop_assert_eq!(reader.mark(), TextMark { bytes: text.len() as u64, sha256 });
    }

    #[test]
    fn a_wrong_byte_is_named_by_its_offset(at in 0usize..400_000, newline in odds(), byte in 0x80u8..) {
        let mut text = vec![b'a'; 400_000];
        (0..text.len()).filter(|i| i * 7919 % 1_000_000 < newline as usize).for_each(|i| text[i] = b'\n');
        text[at] = byte;
        let error = blocks(&text).unwrap_err();
        says(error, &[&format!("t: not UTF-8 at byte {at}")]);
    }
}

/// The fault planted in the check: blocks cut where reads end, overlapping or lost must not pass.
#[test]
fn wrong_blocks_are_noticed() {
    let text = text(300_000, 20_000, 0, 1);
    let good = blocks(text.as_bytes()).unwrap();
    assert!(good.len() > 2 && check(&text, &good).is_ok());
    let mut late = good.clone();
    late[1].start += 1;
    let mut split = good.clone();
    let tail = split[0].text.split_off(1000);
    split.insert(
        1,
        TextBlock {
            text: tail,
            start: 1000,
        },
    );
    for wrong in [&late, &split, &good[1..].to_vec(), &good[..1].to_vec()] {
        assert!(check(&text, wrong).is_err());
    }
}

fn lengths(text: &str) -> Vec<usize> {
    let blocks = blocks(text.as_bytes()).unwrap();
    check(text, &blocks).unwrap();
    blocks.iter().map(|b| b.text.len()).collect()
}

#[test]
fn a_block_ends_after_a_newline() {
    let line = format!("{}\n", "a".repeat(999));
    assert_eq!(lengths(&line.repeat(200)), [66_000, 66_000, 66_000, 2_000]);
    let exact = format!("{}\nrest", "a".repeat(MIN_BLOCK - 1));
    assert_eq!(lengths(&exact), [MIN_BLOCK, 4]);
    let early = format!("{}\naa", "a".repeat(MIN_BLOCK - 2));
    assert_eq!(lengths(&early), [MIN_BLOCK + 1]);
    let far = format!("{}\nrest", " ".repeat(MAX_BLOCK - 1));
    assert_eq!(lengths(&far), [MAX_BLOCK, 4]);
}

#[test]
fn without_a_newline_a_block_ends_before_a_space() {
    let words = "four".repeat(20_000) + " word";
    let text = words.repeat(20);
    assert_eq!(lengths(&text)[0], 80_000);
    assert!(
        blocks(text.as_bytes()).unwrap()[1]
            .text
            .starts_with(" word")
    );
}

#[test]
fn without_a_space_a_block_ends_between_characters() {
    // 1 MiB is not a multiple of 3, and one byte in front shifts a 4-byte character over the edge.
    assert_eq!(
        lengths(&"語".repeat(400_000)),
        [MAX_BLOCK - 1, 1_200_000 - MAX_BLOCK + 1]
    );
    let whales = format!("a{}", "🐳".repeat(300_000));
    assert_eq!(lengths(&whales)[0], MAX_BLOCK - 3);
    assert_eq!(lengths(&"a".repeat(MAX_BLOCK)), [MAX_BLOCK]);
}

#[test]
fn an_empty_text_gives_no_block() {
    assert!(lengths("").is_empty());
    assert_eq!(
        TextBlocks::new(io::empty(), "t").mark(),
        TextMark::default()
    );
}

#[test]
fn a_text_cut_inside_a_character_is_an_error() {
    says(
        blocks(
            "abc🐳"
                .split_at(3)
                .0
                .as_bytes()
                .iter()
                .chain(b"\xf0\x9f")
                .copied()
                .collect::<Vec<_>>()
                .as_slice(),
        )
        .unwrap_err(),
        &["byte 3"],
    );
    let long = ["語".repeat(400_000).as_bytes(), b"\xe8"].concat();
    says(blocks(&long).unwrap_err(), &["byte 1200000"]);
}

#[test]
fn after_an_error_the_blocks_end() {
    let mut reader = TextBlocks::new(&b"\xff"[..], "t");
    assert!(reader.next().unwrap().is_err());
    assert!(reader.next().is_none());
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("unplugged"))
        }
    }
    let mut reader = TextBlocks::new(Broken, "stick");
    says(reader.next().unwrap().unwrap_err(), &["stick", "unplugged"]);
    assert!(reader.next().is_none());
}

#[test]
fn a_mark_recognises_the_text_it_was_taken_from() {
    let text = text(400_000, 20_000, 0, 3);
    let mut reader = TextBlocks::new(text.as_bytes(), "t");
    reader.by_ref().take(2).for_each(|b| drop(b.unwrap()));
    let mark = reader.mark();
    let read = |text: &str, mark: &TextMark| {
        TextBlocks::new(text.as_bytes(), "t")
            .expecting(mark.clone())
            .collect::<Result<Vec<_>, _>>()
    };
    assert_eq!(
        read(&text, &mark).unwrap(),
        blocks(text.as_bytes()).unwrap()
    );
    assert!(read(&text, &TextMark::default()).is_ok());
    let at = mark.bytes as usize;
    let later = [&text[..at], "more\n"].concat();
    assert!(
        read(&later, &mark).is_ok(),
        "what follows the mark may differ"
    );
    let changed = [&text[..at - 1], "X", &text[at..]].concat();
    let longer = ["X", &text].concat();
    for wrong in [&changed, &longer, &text[..at / 2], ""] {
        says(
            read(wrong, &mark).unwrap_err(),
            &["t: not the text", &at.to_string()],
        );
    }
}
