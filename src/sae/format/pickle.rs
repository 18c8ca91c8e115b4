//! Pickles of tensors and plain containers, read without running anything.
//!
//! A pickle is a program for a stack machine, and Python's own reader lets it call any function. This
//! one knows the instructions that `torch.save` writes and a few more. A global is only a name here;
//! it may be called if it is one of those that make a tensor, a storage, an ordered dict, a size or
//! a device, and is refused by its name otherwise.
//!
//! Everything that a pickle makes is bounded by its length, which is at most [`LONGEST`]: an
//! instruction adds at most one value or moves those that are there, containers are handles that
//! nothing unfolds (a list that holds itself, or twice the one before it, costs what it takes in the
//! file), and nothing recurses.

use std::collections::HashMap;
use std::rc::Rc;

use super::bytes::{Bytes, count};

/// Bytes that a pickle may have. That of an autoencoder has a few thousand.
pub(super) const LONGEST: usize = 1 << 18;
/// Marks that may be open at once.
const DEEPEST: usize = 256;
/// Dimensions that a tensor may have.
const DIMENSIONS: usize = 8;

/// One value. Containers are handles into [`Pickle`].
#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    /// A list or a tuple.
    List(usize),
    Dict(usize),
    /// Module and name of something that was not called.
    Global(Rc<str>, Rc<str>),
    Storage(Rc<Storage>),
    Tensor(Rc<View>),
}

/// A stretch of numbers that lies outside the pickle.
#[derive(Debug)]
pub(super) struct Storage {
    pub(super) dtype: Dtype,
    /// The name of its file in the archive.
    pub(super) key: Rc<str>,
    /// How many numbers.
    pub(super) len: usize,
}

/// A tensor: which numbers of a storage it has.
#[derive(Debug)]
pub(super) struct View {
    pub(super) storage: Rc<Storage>,
    pub(super) offset: usize,
    pub(super) size: Vec<usize>,
    pub(super) stride: Vec<usize>,
}

/// Number types of a storage.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Dtype {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl Dtype {
    /// Of the class `torch.{name}`.
    fn of_storage(name: &str) -> Option<Self> {
        Some(match name {
            "DoubleStorage" => Self::F64,
            "FloatStorage" => Self::F32,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::Bf16,
            "LongStorage" => Self::I64,
            "IntStorage" => Self::I32,
            "ShortStorage" => Self::I16,
            "CharStorage" => Self::I8,
            "ByteStorage" => Self::U8,
            "BoolStorage" => Self::Bool,
            _ => return None,
        })
    }

    /// Bytes of one number.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

/// What a pickle holds.
#[derive(Debug)]
pub(super) struct Pickle {
    lists: Vec<Vec<Value>>,
    dicts: Vec<Vec<(Value, Value)>>,
    root: Value,
}

impl Pickle {
    /// Reads a pickle of protocol 2 to 5.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > LONGEST {
            let length = bytes.len();
            return Err(format!(
                "a pickle of {length} bytes; at most {LONGEST} are read"
            ));
        }
        let mut machine = Machine::new(bytes);
        let root = machine.run()?;
        Ok(Self {
            root,
            ..machine.made
        })
    }

    /// The one value that it is.
    pub(super) fn root(&self) -> &Value {
        &self.root
    }

    /// The items of a dict, in order, those that were set again included.
    pub(super) fn items(&self, dict: &Value) -> Option<&[(Value, Value)]> {
        match dict {
            Value::Dict(id) => Some(&self.dicts[*id]),
            _ => None,
        }
    }

    /// What a dict has under `key`.
    pub(super) fn get(&self, dict: &Value, key: &str) -> Option<&Value> {
        let named = |(k, _): &&(Value, Value)| matches!(k, Value::Str(k) if **k == *key);
        let item = self.items(dict)?.iter().rev().find(named)?;
        Some(&item.1)
    }

    /// The items of a list or tuple.
    pub(super) fn list(&self, list: &Value) -> Option<&[Value]> {
        match list {
            Value::List(id) => Some(&self.lists[*id]),
            _ => None,
        }
    }
}

struct Machine<'a> {
    left: Bytes<'a>,
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    made: Pickle,
}

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let made = Pickle {
            lists: Vec::new(),
            dicts: Vec::new(),
            root: Value::None,
        };
        Self {
            left: Bytes(bytes),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            made,
        }
    }

    fn run(&mut self) -> Result<Value, String> {
        self.left.expect(&[0x80], "pickle of protocol 2 or later")?;
        let protocol = self.left.u8()?;
        if !(2..=5).contains(&protocol) {
            return Err(format!("a pickle of protocol {protocol}; 2 to 5 are read"));
        }
        loop {
            match self.left.u8()? {
                b'.' => break,
                op => self.step(op)?,
            }
        }
        match (self.left.0, self.pop()?, &self.stack[..]) {
            ([], root, []) => Ok(root),
            _ => Err("a pickle that does not end with its one value".into()),
        }
    }

    fn step(&mut self, op: u8) -> Result<(), String> {
        match op {
            0x95 => self.left.u64().map(drop), // frame: a hint for readers of streams
            b'(' => self.mark(),
            b'0' => self.pop().map(drop),
            b'1' => self.pop_mark().map(drop),
            b'2' => self.top().cloned().map(|top| self.stack.push(top)),
            b'}' | b']' | b')' | 0x85 | 0x86 | 0x87 | b't' | b'l' | b'd' => self.container(op),
            b's' | b'u' | b'a' | b'e' => self.fill(op),
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.remember(op),
            b'c' | 0x93 | b'R' | 0x81 | b'b' | b'Q' => self.refer(op),
            _ => self.scalar(op),
        }
    }

    /// Numbers, texts and the three constants.
    fn scalar(&mut self, op: u8) -> Result<(), String> {
        let left = &mut self.left;
        let value = match op {
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(left.u8()?.into()),
            b'M' => Value::Int(left.u16()?.into()),
            b'J' => Value::Int(i32::from_le_bytes(left.array()?).into()),
            0x8a => {
                let length = left.u8()?.into();
                Value::Int(long(left.take(length)?)?)
            }
            b'G' => Value::Float(f64::from_be_bytes(left.array()?)),
            0x8c | b'U' => {
                let length = left.u8()?.into();
                Value::Str(left.text(length)?.into())
            }
            b'X' | b'T' => {
                let length = count(left.u32()?.into())?;
                Value::Str(left.text(length)?.into())
            }
            0x8d => {
                let length = count(left.u64()?)?;
                Value::Str(left.text(length)?.into())
            }
            _ => return Err(format!("pickle instruction {op:#04x}: refused")),
        };
        self.stack.push(value);
        Ok(())
    }

    /// New containers, empty or from what is on the stack.
    fn container(&mut self, op: u8) -> Result<(), String> {
        let value = match op {
            b'}' => self.dict(Vec::new()),
            b']' | b')' => self.list(Vec::new()),
            b'd' => {
                let items = pairs(self.pop_mark()?)?;
                self.dict(items)
            }
            b't' | b'l' => {
                let items = self.pop_mark()?;
                self.list(items)
            }
            few => {
                let items = self.pop_many(usize::from(few - 0x84))?;
                self.list(items)
            }
        };
        self.stack.push(value);
        Ok(())
    }

    /// Items put into the container below them.
    fn fill(&mut self, op: u8) -> Result<(), String> {
        let items = match op {
            b's' => self.pop_many(2)?,
            b'a' => self.pop_many(1)?,
            _ => self.pop_mark()?,
        };
        match (op, self.top()?.clone()) {
            (b's' | b'u', Value::Dict(id)) => self.made.dicts[id].extend(pairs(items)?),
            (b'a' | b'e', Value::List(id)) => self.made.lists[id].extend(items),
            _ => return Err("items for something that holds none".into()),
        }
        Ok(())
    }

    /// The memo, which has an entry for each that is written and no gaps to fill.
    fn remember(&mut self, op: u8) -> Result<(), String> {
        let at = match op {
            b'q' | b'h' => self.left.u8()?.into(),
            0x94 => self.memo.len() as u32,
            _ => self.left.u32()?,
        };
        if matches!(op, b'h' | b'j') {
            let value = self.memo.get(&at).cloned();
            self.stack
                .push(value.ok_or("a memo entry that was never written")?);
        } else {
            self.memo.insert(at, self.top()?.clone());
        }
        Ok(())
    }

    /// Globals, calls, states and storages.
    fn refer(&mut self, op: u8) -> Result<(), String> {
        let value = match op {
            b'c' => Value::Global(self.left.line()?.into(), self.left.line()?.into()),
            0x93 => match &self.pop_many(2)?[..] {
                [Value::Str(module), Value::Str(name)] => {
                    Value::Global(module.clone(), name.clone())
                }
                _ => return Err("a global without a name".into()),
            },
            b'b' => return self.state(),
            b'Q' => {
                let id = self.pop()?;
                self.storage(&id)?
            }
            _ => self.call()?,
        };
        self.stack.push(value);
        Ok(())
    }

    /// A state for an object: what PyTorch adds to an ordered dict (`_metadata`) or a tensor says
    /// nothing here.
    fn state(&mut self) -> Result<(), String> {
        self.pop()?;
        match self.top()? {
            Value::Dict(_) | Value::Tensor(_) => Ok(()),
            _ => Err("a state for something that has none".into()),
        }
    }

    fn storage(&self, id: &Value) -> Result<Value, String> {
        let parts = self.made.list(id).unwrap_or_default();
        let [kind, class, Value::Str(key), _, Value::Int(len)] = parts else {
            return Err("a reference to something that is no storage".into());
        };
        let (Value::Str(kind), Value::Global(module, name)) = (kind, class) else {
            return Err("a reference to something that is no storage".into());
        };
        match Dtype::of_storage(name) {
            Some(dtype) if **kind == *"storage" && **module == *"torch" => {
                Ok(Value::Storage(Rc::new(Storage {
                    dtype,
                    key: key.clone(),
                    len: size(*len)?,
                })))
            }
            _ => {
                let (module, name) = (short(module), short(name));
                Err(format!("{module}.{name}: no storage that is read"))
            }
        }
    }

    /// What a global makes of arguments, both on the stack.
    fn call(&mut self) -> Result<Value, String> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let (Value::Global(module, name), Value::List(id)) = (callee, arguments) else {
            return Err("a call of something that is no global".into());
        };
        let arguments = std::mem::take(&mut self.made.lists[id]);
        let made = self.make([&module, &name], &arguments);
        self.made.lists[id] = arguments;
        made
    }

    fn make(&mut self, callee: [&str; 2], arguments: &[Value]) -> Result<Value, String> {
        match (callee, arguments) {
            (["collections", "OrderedDict"], []) => Ok(self.dict(Vec::new())),
            (["torch._utils", "_rebuild_tensor_v2"], [Value::Storage(s), at, size, stride, ..]) => {
                self.view(s, [at, size, stride])
            }
            (
                [
                    "torch._utils",
                    "_rebuild_parameter" | "_rebuild_parameter_with_state",
                ],
                [tensor @ Value::Tensor(_), ..],
            ) => Ok(tensor.clone()),
            (["torch", "Size"], [list @ Value::List(_)]) => Ok(list.clone()),
            (["torch", "device"], [device @ Value::Str(_), ..]) => Ok(device.clone()),
            ([module, name], _) => Err(format!(
                "{}.{}: refused; a file may hold tensors and plain values, and runs nothing",
                short(module),
                short(name)
            )),
        }
    }

    fn view(&self, storage: &Rc<Storage>, parts: [&Value; 3]) -> Result<Value, String> {
        let [Value::Int(offset), sizes, strides] = parts else {
            return Err("a tensor without an offset".into());
        };
        let view = View {
            storage: storage.clone(),
            offset: size(*offset)?,
            size: self.sizes(sizes)?,
            stride: self.sizes(strides)?,
        };
        match view.size.len() == view.stride.len() {
            true => Ok(Value::Tensor(Rc::new(view))),
            false => Err("a tensor with more sizes than strides, or fewer".into()),
        }
    }

    fn sizes(&self, list: &Value) -> Result<Vec<usize>, String> {
        let items = self.made.list(list).ok_or("a tensor without sizes")?;
        if items.len() > DIMENSIONS {
            let n = items.len();
            return Err(format!(
                "a tensor of {n} dimensions; at most {DIMENSIONS} are read"
            ));
        }
        let one = |item: &Value| match item {
            Value::Int(n) => size(*n),
            _ => Err("a size that is no number".into()),
        };
        items.iter().map(one).collect()
    }

    fn list(&mut self, items: Vec<Value>) -> Value {
        self.made.lists.push(items);
        Value::List(self.made.lists.len() - 1)
    }

    fn dict(&mut self, items: Vec<(Value, Value)>) -> Value {
        self.made.dicts.push(items);
        Value::Dict(self.made.dicts.len() - 1)
    }

    fn mark(&mut self) -> Result<(), String> {
        if self.marks.len() == DEEPEST {
            return Err(format!("more than {DEEPEST} containers in each other"));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// Values above the last mark.
    fn above(&self) -> usize {
        self.stack.len() - self.marks.last().unwrap_or(&0)
    }

    fn top(&self) -> Result<&Value, String> {
        let top = self.stack.last().filter(|_| self.above() > 0);
        top.ok_or_else(|| "a value from an empty stack".into())
    }

    fn pop(&mut self) -> Result<Value, String> {
        self.top()?;
        Ok(self.stack.pop().expect("there is a top"))
    }

    fn pop_many(&mut self, n: usize) -> Result<Vec<Value>, String> {
        match self.above() >= n {
            true => Ok(self.split(self.stack.len() - n)),
            false => Err("values from an empty stack".into()),
        }
    }

    fn pop_mark(&mut self) -> Result<Vec<Value>, String> {
        let mark = self.marks.pop().ok_or("a mark that was never set")?;
        Ok(self.split(mark))
    }

    /// What lies from there on, in memory of its own size.
    fn split(&mut self, at: usize) -> Vec<Value> {
        self.stack.drain(at..).collect()
    }
}

/// What a message quotes of a name.
fn short(name: &str) -> String {
    name.chars().take(80).collect()
}

/// A number in two's complement of any length up to eight bytes.
fn long(bytes: &[u8]) -> Result<i64, String> {
    let negative = bytes.last().is_some_and(|&b| b & 0x80 != 0);
    let mut all = [if negative { 0xff } else { 0 }; 8];
    let low = all.get_mut(..bytes.len());
    low.ok_or_else(|| format!("a number of {} bytes", bytes.len()))?
        .copy_from_slice(bytes);
    Ok(i64::from_le_bytes(all))
}

fn size(n: i64) -> Result<usize, String> {
    usize::try_from(n).map_err(|_| format!("{n} as a size"))
}

fn pairs(items: Vec<Value>) -> Result<Vec<(Value, Value)>, String> {
    if items.len() % 2 == 1 {
        return Err("a dict with a key that has no value".into());
    }
    let mut items = items.into_iter();
    Ok(std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rest: &[u8]) -> Result<Pickle, String> {
        Pickle::parse(&[b"\x80\x04", rest].concat())
    }

    /// Every instruction that leaves a plain value, with the value.
    #[test]
    fn plain_values_are_read() {
        let shown = |rest: &[u8]| format!("{:?}", parse(rest).unwrap().root());
        for (rest, want) in [
            (&b"N."[..], "None"),
            (b"\x88.", "Bool(true)"),
            (b"\x89.", "Bool(false)"),
            (b"K\xff.", "Int(255)"),
            (b"M\xff\xff.", "Int(65535)"),
            (b"J\xfe\xff\xff\xff.", "Int(-2)"),
            (b"\x8a\0.", "Int(0)"),
            (b"\x8a\x01\x80.", "Int(-128)"),
            (b"\x8a\x02\x80\0.", "Int(128)"),
            (b"G\x3f\xf8\0\0\0\0\0\0.", "Float(1.5)"),
            (b"\x8c\x02\xc3\xa9.", "Str(\"é\")"),
            (b"X\x01\0\0\0a.", "Str(\"a\")"),
            (b"T\x01\0\0\0a.", "Str(\"a\")"),
            (b"U\x01a.", "Str(\"a\")"),
            (b"\x8d\x01\0\0\0\0\0\0\0a.", "Str(\"a\")"),
            (b"\x95\x02\0\0\0\0\0\0\0N.", "None"),
            (b"NK\x010.", "None"),
            (b"N(NN1.", "None"),
        ] {
            assert_eq!(shown(rest), want, "{rest:?}");
        }
    }

    #[test]
    fn containers_hold_what_was_put_into_them() {
        let shown = |rest: &[u8]| {
            let pickle = parse(rest).unwrap();
            format!("{:?}", pickle.list(pickle.root()).unwrap())
        };
        for (rest, want) in [
            (&b")."[..], "[]"),
            (b"K\x01\x85.", "[Int(1)]"),
            (b"K\x01K\x02\x86.", "[Int(1), Int(2)]"),
            (b"K\x01K\x02K\x03\x87.", "[Int(1), Int(2), Int(3)]"),
            (b"(K\x01K\x02t.", "[Int(1), Int(2)]"),
            (b"(K\x01K\x02l.", "[Int(1), Int(2)]"),
            (b"]K\x01a.", "[Int(1)]"),
            (b"](K\x01K\x02e.", "[Int(1), Int(2)]"),
            (b"K\x01q\x05\x85h\x05\x86.", "[List(0), Int(1)]"),
            (b"K\x01\x94h\0\x86.", "[Int(1), Int(1)]"),
            (
                b"K\x01r\x01\x02\x03\x04j\x01\x02\x03\x04\x86.",
                "[Int(1), Int(1)]",
            ),
            (b"K\x012\x86.", "[Int(1), Int(1)]"),
        ] {
            assert_eq!(shown(rest), want, "{rest:?}");
        }
        let pickle = parse(b"}(\x8c\x01aK\x01\x8c\x01bK\x02u\x8c\x01aK\x03s.").unwrap();
        let get = |key| format!("{:?}", pickle.get(pickle.root(), key));
        assert_eq!(get("a"), "Some(Int(3))", "the last one counts");
        assert_eq!(get("b"), "Some(Int(2))");
        assert_eq!(get("c"), "None");
    }

    /// A tuple that one call took still has its items for the next.
    #[test]
    fn arguments_are_there_for_a_second_call() {
        let device = b"ctorch\ndevice\n\x8c\x03cpu\x85q\x01Rctorch\ndevice\nh\x01R\x86.";
        let pickle = parse(device).unwrap();
        let both = format!("{:?}", pickle.list(pickle.root()).unwrap());
        assert_eq!(both, "[Str(\"cpu\"), Str(\"cpu\")]");
    }

    #[test]
    fn a_mark_guards_what_lies_below_it() {
        for rest in [&b"N(0."[..], b"N(\x85.", b"](a.", b"N(q\0."] {
            assert!(parse(rest).unwrap_err().contains("empty stack"), "{rest:?}");
        }
    }
}
