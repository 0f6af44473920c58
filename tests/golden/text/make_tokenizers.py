# Makes the files of this folder that test_tokenizer_parity.c reads: small
# models (byte-level BPE, SentencePiece BPE with byte fallback, BPE with affixes,
# WordPiece, Unigram) and tokenizer_variants.json, which lists pipelines over them
# with the FNV-1a digests of the ids and texts that the Python package
# `tokenizers` 0.23.3 gives for generated text. The generator below and the one
# in the test are the same.
import base64, json, os, struct, sys
from tokenizers import Tokenizer, models, trainers, pre_tokenizers, normalizers

HERE = os.path.dirname(os.path.abspath(__file__))
RANGES = [(0x61, 0x7A), (0x3B1, 0x3C9), (0x400, 0x44F), (0x5D0, 0x5EA), (0x621, 0x65F), (0x905, 0x963), (0xE01, 0xE4E),
          (0x3041, 0x30FF), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0x1F300, 0x1FAFF), (0x300, 0x36F), (0xC0, 0x24F),
          (0x1E00, 0x1FFF), (0x2000, 0x2FFF), (0xFF00, 0xFFEF), (0x20000, 0x20FFF), (0x0, 0xA0), (0x1100, 0x11FF),
          (0x10000, 0x1FFFF)]
SEPARATORS = [" ", "  ", "   ", "\n", "\t", " \n", "\r\n", "\n\n", "\u3000", "\u00a0", "\u200b", "\u180e", "\u0085", "\ufeff",
              "'s", "'ll", "'\u017f", "'S", "'RE", "<|im_end|>", "[MASK]", "</s>", "1", "12", "1234", "1234567", ".", ",", "!",
              "?", "/", "//\n/", "\u2028", "-", "--", "a", "B", "\u0301", "\u00b2", "\u0663", "\u02b0", "\u01c5", "\u00df", "_", "\u2581"]
LETTERS = "etaoinshrdlu"


class Random:
    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % n


def mixed_text(seed, units):
    r, out = Random(seed), []
    for _ in range(units):
        kind = r.below(10)
        if kind < 3:
            low, high = RANGES[r.below(len(RANGES))]
            for _ in range(1 + r.below(8)):
                out.append(chr(low + r.below(high - low + 1)))
        elif kind < 6:
            upper = r.below(4) == 0
            for _ in range(1 + r.below(9)):
                c = LETTERS[r.below(len(LETTERS))]
                out.append(c.upper() if upper else c)
                upper = False
        elif kind < 9:
            out.append(SEPARATORS[r.below(len(SEPARATORS))])
        else:
            c = r.below(0x110000)
            out.append("A" if 0xD800 <= c <= 0xDFFF else chr(c))
        if r.below(2):
            out.append(" ")
    return "".join(out)


def every_code_point():
    """Without the planes where nothing is assigned but at their ends."""
    out = []
    for c in range(0x110000):
        if 0xD800 <= c <= 0xDFFF or 0x33480 <= c < 0xDFF00 or 0xE0200 <= c < 0x10FF00:
            continue
        out.append(("a" if c % 3 == 0 else "") + chr(c) + (" " if c % 5 == 0 else ""))
    return "".join(out)


def digest(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) % 2**64
    return "%016x" % h


def ids_digest(ids):
    return digest(struct.pack("<%di" % len(ids), *ids))


def added(content, special=True, **kw):
    return dict(dict(id=0, content=content, single_word=False, lstrip=False, rstrip=False, normalized=False, special=special), **kw)


def write(name, tree):
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as f:
        json.dump(tree, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")


def train():
    corpus = [mixed_text(100 + i, 3000) for i in range(20)]
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=700, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tree = json.loads(t.to_str())
    n = len(tree["model"]["vocab"])
    tree["added_tokens"] = [added("<|im_end|>", id=n), added("[MASK]", id=n + 1, lstrip=True, rstrip=True),
                            added("[MASK", special=False, id=n + 2, single_word=True), added("etao", special=False, id=n + 3, normalized=True)]
    tree["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    write("byte_level.json", tree)

    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    t.normalizer = normalizers.Replace(" ", "\u2581")
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=900, limit_alphabet=200, show_progress=False,
                          special_tokens=["<unk>", "<s>", "</s>"] + ["<0x%02X>" % i for i in range(256)]))
    tree = json.loads(t.to_str())
    tree["added_tokens"] = [added(x, id=i) for i, x in enumerate(["<unk>", "<s>", "</s>"])]
    tree["pre_tokenizer"] = None
    write("spm.json", tree)

    t = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.train_from_iterator(corpus, trainers.WordPieceTrainer(vocab_size=900, limit_alphabet=300, show_progress=False,
                          special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    tree = json.loads(t.to_str())
    tree["post_processor"] = {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}
    tree["decoder"] = {"type": "WordPiece", "prefix": "##", "cleanup": True}
    write("wordpiece.json", tree)

    letters = ["".join(c for c in text if c in " \n" or "!" <= c < "\x7f" or "\u0410" <= c < "\u0450" or c in "é日本語") for text in corpus]
    t = Tokenizer(models.Unigram())
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator(letters, trainers.UnigramTrainer(vocab_size=500, unk_token="<unk>", show_progress=False,
                          special_tokens=["<s>", "<unk>", "</s>"] + ["<0x%02X>" % i for i in range(256)]))
    tree = json.loads(t.to_str())
    tree["added_tokens"] = [added(x, id=i) for i, x in enumerate(["<s>", "<unk>", "</s>"])]
    tree["decoder"] = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    write("unigram.json", tree)

    t = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="@@", end_of_word_suffix="</w>"))
    t.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    t.train_from_iterator(letters, trainers.BpeTrainer(vocab_size=600, show_progress=False, special_tokens=["<unk>", "<s>", "</s>"],
                          continuing_subword_prefix="@@", end_of_word_suffix="</w>"))
    write("affixes.json", json.loads(t.to_str()))


C = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
U, W, LEAD = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[^\r\n\p{L}\p{N}]?"
TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
KU, KW = U[:-1] + r"&&[^\p{Han}]]", W[:-1] + r"&&[^\p{Han}]]"
PATTERNS = {
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "llama3": C + "|" + LEAD + r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + TAIL,
    "qwen2": C + "|" + LEAD + r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + TAIL,
    "qwen35": C + "|" + LEAD + r"[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + TAIL,
    "o200k": LEAD + U + "*" + W + "+" + C + "?|" + LEAD + U + "+" + W + "*" + C + r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + TAIL,
    "tekken": LEAD + U + "*" + W + "+|" + LEAD + U + "+" + W + r"*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + TAIL,
    "kimi": r"[\p{Han}]+|" + LEAD + KU + "*" + KW + "+" + C + "?|" + LEAD + KU + "+" + KW + "*" + C + r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + TAIL,
    "bailing": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    "cl100k": r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    "dsv3": "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|" + TAIL,
    "seed": C + "|" + LEAD + r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|" + TAIL,
    "jais2": C + "|" + LEAD + r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s{16}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}",
    "aya": r"\d{1,3}(?=(?:\d{3})*\b)",
    "thousands": r"(?=(\d{3})+(?!\d))",
    "bloom": r" ?[^(\s|[.,!?…。，、।۔،])]+",
    "punct": r"[[:punct:]]+|\h+|[^\W_]{2}+",
    "words": r"\w+|\W{1,2}",
}


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": pattern if isinstance(pattern, dict) else {"Regex": pattern}, "behavior": behavior, "invert": invert}


def variants():
    raw = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    gpt2 = dict(raw, use_regex=True)
    seq = lambda *parts: {"type": "Sequence", "pretokenizers": list(parts)}
    B = "byte_level.json"
    yield "smollm, every code point", B, dict(pre_tokenizer=seq({"type": "Digits", "individual_digits": True}, gpt2), every=True)
    yield "smollm", B, dict(pre_tokenizer=seq({"type": "Digits", "individual_digits": True}, gpt2))
    yield "byte level with prefix", B, dict(pre_tokenizer=dict(gpt2, add_prefix_space=True))
    for name, pattern in PATTERNS.items():
        yield "split " + name, B, dict(pre_tokenizer=seq(split(pattern), raw))
    yield "llama3, every code point", B, dict(pre_tokenizer=seq(split(PATTERNS["llama3"]), raw), every=True)
    yield "o200k, every code point", B, dict(pre_tokenizer=seq(split(PATTERNS["o200k"]), raw), every=True)
    yield "phi4", B, dict(pre_tokenizer=seq(split(PATTERNS["llama3"], "Removed", True), raw))
    yield "ignore merges", B, dict(pre_tokenizer=seq(split(PATTERNS["llama3"]), raw), model={"ignore_merges": True})
    yield "deepseek v3", B, dict(pre_tokenizer=seq(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(PATTERNS["dsv3"]), raw))
    yield "deepseek coder", B, dict(pre_tokenizer=seq(split(r"[\r\n]"), split(r"\s?\p{L}+"), split(r"\s?\p{P}+"), split("[一-龥ࠀ-一가-퟿]+"),
                                    {"type": "Digits", "individual_digits": True}, raw))
    yield "falcon", B, dict(pre_tokenizer=seq({"type": "Punctuation", "behavior": "Contiguous"}, gpt2, {"type": "Digits", "individual_digits": False}, split("[0-9][0-9][0-9]")))
    for behavior in ["Removed", "Isolated", "Contiguous", "MergedWithPrevious", "MergedWithNext"]:
        yield "punctuation " + behavior, B, dict(pre_tokenizer=seq({"type": "Punctuation", "behavior": behavior}, raw))
        for invert in [False, True]:
            yield "split letters %s %s" % (behavior, invert), B, dict(pre_tokenizer=seq(split(r"[a-m]|\p{Lu}", behavior, invert), raw))
            yield "split string %s %s" % (behavior, invert), B, dict(pre_tokenizer=seq(split({"String": " "}, behavior, invert), raw))
            yield "split empty %s %s" % (behavior, invert), B, dict(pre_tokenizer=seq(split("(?=e)", behavior, invert), raw))
    for part in [{"type": "BertPreTokenizer"}, {"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "Digits", "individual_digits": False},
                 {"type": "CharDelimiterSplit", "delimiter": "e"}, {"type": "FixedLength", "length": 3}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}]:
        yield part["type"], B, dict(pre_tokenizer=seq(part, raw))
    yield "Whitespace, every code point", B, dict(pre_tokenizer=seq({"type": "Whitespace"}, raw), every=True)
    bert = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    norms = [{"type": n} for n in ["NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Lowercase", "Nmt", "ByteLevel"]] + [
        bert, dict(bert, lowercase=False), dict(bert, strip_accents=True, lowercase=False), dict(bert, clean_text=False, strip_accents=False),
        {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": "e"}, "content": "$1é"}, {"type": "Replace", "pattern": {"Regex": r"\s+|[aeiou]{2,}"}, "content": " "},
        {"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, {"type": "NFC"}]}]
    for n in norms:
        pre = raw if n["type"] != "ByteLevel" else {"type": "WhitespaceSplit"}
        yield "normalizer %s" % json.dumps(n), B, dict(normalizer=n, pre_tokenizer=pre)
        if n["type"] in ("NFC", "NFKD", "BertNormalizer", "Lowercase"):
            yield "every code point, normalizer %s" % json.dumps(n), B, dict(normalizer=n, pre_tokenizer=pre, every=True)
    S = "spm.json"
    sp, pre = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}, {"type": "Prepend", "prepend": "▁"}
    tail = [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    yield "llama 2", S, dict(normalizer={"type": "Sequence", "normalizers": [pre, sp]}, decoder={"type": "Sequence", "decoders": tail + [strip]})
    yield "gemma", S, dict(normalizer=sp, pre_tokenizer=split({"String": " "}, "MergedWithPrevious"), decoder={"type": "Sequence", "decoders": tail})
    for scheme in ["always", "first", "never"]:
        meta = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": scheme != "first"}
        yield "metaspace " + scheme, S, dict(normalizer=None, pre_tokenizer=meta, decoder=meta)
    for model in [dict(byte_fallback=False), dict(byte_fallback=False, fuse_unk=False), dict(byte_fallback=False, unk_token=None)]:
        yield "unknown %s" % json.dumps(model), S, dict(normalizer=sp, model=model, decoder={"type": "BPEDecoder", "suffix": "e"})
    yield "fallback without fuse", S, dict(normalizer=sp, decoder={"type": "ByteFallback"})
    yield "no decoder", S, dict(normalizer=sp, decoder=None)
    yield "ctc", S, dict(normalizer=sp, decoder={"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "▁", "cleanup": True})
    yield "replace after fuse", S, dict(normalizer=sp, decoder={"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Replace", "pattern": {"Regex": "▁+"}, "content": "_"}]})
    W = "wordpiece.json"
    yield "bert", W, dict()
    yield "bert, every code point", W, dict(every=True)
    yield "bert, no cleanup", W, dict(decoder={"type": "WordPiece", "prefix": "##", "cleanup": False})
    yield "bert, short words", W, dict(model={"max_input_chars_per_word": 5})


    U = "unigram.json"
    charsmap = sentencepiece_charsmap()
    meta = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    yield "unigram", U, dict()
    yield "unigram, every code point", U, dict(every=True)
    yield "unigram, bytes", U, dict(model={"byte_fallback": True}, decoder={"type": "Sequence", "decoders": [{"type": "ByteFallback"}, meta]})
    yield "unigram, one piece", U, dict(pre_tokenizer=dict(meta, split=False))
    yield "unigram, scripts", U, dict(pre_tokenizer=seq(meta, {"type": "UnicodeScripts"}), model={"byte_fallback": True})
    yield "scripts, every code point", U, dict(pre_tokenizer={"type": "UnicodeScripts"}, every=True)
    yield "unigram, charsmap", U, dict(normalizer={"type": "Sequence", "normalizers": [{"type": "Precompiled", "precompiled_charsmap": charsmap},
                                       {"type": "Strip", "strip_left": False, "strip_right": True}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}]})
    yield "charsmap, every code point", U, dict(normalizer={"type": "Precompiled", "precompiled_charsmap": charsmap}, every=True)
    A = "affixes.json"
    yield "affixes", A, dict(decoder={"type": "BPEDecoder", "suffix": "</w>"})
    yield "affixes, one unknown", A, dict(model={"fuse_unk": True}, decoder=None)
    yield "affixes, lowercase", A, dict(normalizer={"type": "Lowercase"}, decoder={"type": "Fuse"})
    words = {"type": "WordLevel", "vocab": {w: i for i, w in enumerate(["<unk>", "the", "a", "12", "A", "B", "1", "is", "it", "to", "in", "_", "'s"])}, "unk_token": "<unk>"}
    level = dict(pre_tokenizer={"type": "Whitespace"}, replace_model=words, added_tokens=[], post_processor=None)
    yield "words", W, dict(level, normalizer={"type": "Lowercase"}, decoder=None)
    yield "words, wordpiece decoder", W, dict(level, normalizer=None, decoder={"type": "WordPiece", "prefix": "##", "cleanup": True})
    special = lambda name, type_id=0: {"SpecialToken": {"id": name, "type_id": type_id}}
    part = lambda name, type_id=0: {"Sequence": {"id": name, "type_id": type_id}}
    named = {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}, "[X]": {"id": "[X]", "ids": [3, 4], "tokens": ["[SEP]", "[MASK]"]}}
    template = {"type": "TemplateProcessing", "single": [special("[X]"), part("A"), special("[CLS]")],
                "pair": [special("[CLS]"), part("B", 1), special("[X]", 2), part("A"), special("[CLS]", 1)], "special_tokens": named}
    roberta = {"type": "RobertaProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2], "trim_offsets": True, "add_prefix_space": False}
    plain = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    for post in [template, roberta, {"type": "Sequence", "processors": [plain, template]}, plain, None]:
        yield "post %s" % (post and post["type"]), W, dict(post_processor=post, pair=True)
    yield "post Bert", W, dict(pair=True)


def sentencepiece_charsmap():
    """Of spm_unigram, which make_files.py made: field 2 of field 3 of the model."""
    def fields(data):
        at = 0
        def varint():
            nonlocal at
            value = shift = 0
            while True:
                byte = data[at]
                at += 1
                value |= (byte & 127) << shift
                shift += 7
                if byte < 128:
                    return value
        while at < len(data):
            key = varint()
            size = {0: None, 1: 8, 2: None, 5: 4}[key & 7]
            if key & 7 == 0:
                varint()
                continue
            size = varint() if size is None else size
            yield key >> 3, data[at:at + size]
            at += size
    data = open(os.path.join(HERE, "spm_unigram", "tokenizer.model"), "rb").read()
    spec = next(v for k, v in fields(data) if k == 3)
    return base64.b64encode(next(v for k, v in fields(spec) if k == 2)).decode()


def build(base, change):
    tree = json.load(open(os.path.join(HERE, base), encoding="utf-8"))
    for key, value in change.items():
        if key == "model":
            tree["model"].update(value)
        elif key == "replace_model":
            tree["model"] = value
        elif key not in ("every", "pair"):
            tree[key] = value
    return tree


def main():
    if "--train" in sys.argv:
        train()
    every, text, out = every_code_point(), mixed_text(1, 12000), []
    short = [mixed_text(1000 + i, 8) for i in range(200)]
    for name, base, change in variants():
        t = Tokenizer.from_str(json.dumps(build(base, change)))
        entry = dict(name=name, base=base, change=change)
        if change.get("every"):
            ids = t.encode(every, add_special_tokens=False).ids
        else:
            ids = t.encode(text, add_special_tokens=True).ids
            if change.get("pair"):
                for i in range(0, 200, 2):
                    both = t.encode(short[i], short[i + 1], add_special_tokens=True)
                    ids += both.ids + both.type_ids
            for s in short:
                t.encode_special_tokens = len(s) % 2 == 1
                ids += t.encode(s, add_special_tokens=False).ids
            t.encode_special_tokens = False
            r = Random(7)
            texts = [t.decode(ids, skip_special_tokens=False)]
            for i in range(200):
                some = [r.below(t.get_vocab_size() + 3) for _ in range(1 + r.below(30))]
                texts.append(t.decode(some, skip_special_tokens=i % 2 == 0))
            entry["texts"] = digest("\n".join(texts).encode())
        entry["ids"], entry["count"] = ids_digest(ids), len(ids)
        out.append(entry)
        print(name, len(ids), flush=True)
    write("tokenizer_variants.json", out)


if __name__ == "__main__":
    main()
