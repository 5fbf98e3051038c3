"""What the checks of a family share: hostile inputs and ways to see what they did."""

import html.parser
import pickle

MARKER = "pwned"
SHELL_ATTACKS = (
    f"x; mkdir {MARKER}", f"x && mkdir {MARKER}", f"x || mkdir {MARKER}", f"x | mkdir {MARKER}",
    f"$(mkdir {MARKER})", f"`mkdir {MARKER}`", f"x\nmkdir {MARKER}\n", f"x'; mkdir {MARKER}; '",
    f'x"; mkdir {MARKER}; "',
)
EXPRESSION_ATTACKS = (
    f"__import__('os').mkdir('{MARKER}')", f"[].append(__import__('os').mkdir('{MARKER}'))",
    f"(lambda: __import__('os').mkdir('{MARKER}'))()",
)


def placed(arguments, at, value):
    """The arguments with value at one place, or value alone if there are none."""
    values = list(arguments) or [None]
    values[at] = value
    return values


def marker_safe(case, function, arguments, attacks):
    """No attack makes the marker: as its text has it, wherever the program is when it runs that, or by its path."""
    for attack in attacks:
        case.attack(function, *arguments(attack))
        assert not case.found(MARKER), f"ran {attack!r}"
        case.attack(function, *arguments(attack.replace(MARKER, case.path(MARKER))))
        assert not case.exists(MARKER), f"ran {attack!r}, with a path"


def shell_safe(case, function, *arguments, at=-1, attacks=SHELL_ATTACKS, embed="{}"):
    """No command runs that hides in one argument."""
    marker_safe(case, function, lambda attack: placed(arguments, at, embed.format(attack)), attacks)


def expression_safe(case, function, *arguments, at=-1, attacks=EXPRESSION_ATTACKS, embed="{}"):
    """No expression runs that stands where a value is expected."""
    marker_safe(case, function, lambda attack: placed(arguments, at, embed.format(attack)), attacks)


class Directory:
    """A class whose pickle makes a folder when it is loaded."""

    def __reduce__(self):
        import os
        return os.mkdir, (MARKER,)


def pickle_payload():
    return pickle.dumps(Directory(), protocol=2)


def payload_safe(case, plant, trigger):
    """Neither a pickle nor an expression runs that was planted where data is read back."""
    for payload in (pickle_payload(), EXPRESSION_ATTACKS[0].encode()):
        plant(payload)
        trigger()
        assert not case.found(MARKER), f"ran what was planted: {payload[:40]!r}"


class Elements(html.parser.HTMLParser):
    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.elements = []
        self.text = ""

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, tuple(name for name, _ in attributes)))
        self.values = getattr(self, "values", [])
        self.values += [value for _, value in attributes]

    def handle_data(self, data):
        self.text += data


def parse(markup):
    """Elements, with the names of their attributes, and text of a piece of HTML."""
    parser = Elements()
    parser.feed(markup)
    parser.close()
    return parser


MARKUP_ATTACKS = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"><b>bold</b>', "' onclick='alert(1)",
    '" onmouseover="alert(1)',
)


def markup_safe(case, function, *arguments, at=-1, plain="plain", attacks=MARKUP_ATTACKS, wrap=lambda text: text):
    """Text stays text: hostile input leads to the same elements and attributes as plain input."""
    def elements(text):
        outcome = case.attack(function, *placed(arguments, at, wrap(text)))
        return parse(outcome.value).elements if isinstance(outcome.value, str) else None

    expected = elements(plain)
    assert expected is not None, "gives no text for plain input"
    for attack in attacks:
        found = elements(attack)
        assert found is None or found == expected, f"{attack!r} became {found}"


def private(case, name):
    """Nobody but the owner can read or write a file."""
    mode = case.mode(name)
    assert mode & 0o077 == 0, f"{name} has mode {mode:04o}"
    return mode


def planted(case, name, canary="canary.txt"):
    """A symbolic link to a canary, where an attacker expects the program to write."""
    import os
    case.write(canary, "precious")
    if os.path.lexists(case.path(name)):
        os.unlink(case.path(name))
    os.symlink(case.path(canary), case.path(name))


def canary_lives(case, canary="canary.txt"):
    assert case.read(canary) == "precious", "the canary was overwritten through a planted link"


FORESEEABLE = """
import datetime, os, random, tempfile, time, uuid
NOW = 1700000000.0
MOMENT = time.gmtime(NOW)
of_day, text_of, generator, seed = datetime.datetime, time.strftime, random.Random, random.seed


class FixedDatetime(of_day):
    @classmethod
    def now(cls, tz=None):
        return of_day.fromtimestamp(NOW, tz)

    @classmethod
    def utcnow(cls):
        return of_day.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None)

    today = utcnow


# Whatever seeds a Mersenne Twister, its outputs give away those that follow.
class FixedRandom(generator):
    def seed(self, a=None, version=2):
        super().seed(20 if a is None else a, version)


def fixed(value):
    return lambda *_, **__: value


known = {
    (time, "time"): fixed(NOW), (time, "time_ns"): fixed(int(NOW) * 10**9), (time, "monotonic"): fixed(500.0),
    (time, "monotonic_ns"): fixed(500 * 10**9), (time, "perf_counter"): fixed(500.0),
    (time, "perf_counter_ns"): fixed(500 * 10**9), (time, "process_time"): fixed(1.0),
    (time, "process_time_ns"): fixed(10**9), (time, "clock_gettime"): fixed(NOW),
    (time, "clock_gettime_ns"): fixed(int(NOW) * 10**9), (time, "ctime"): fixed("Tue Nov 14 22:13:20 2023"),
    (time, "localtime"): fixed(MOMENT), (time, "gmtime"): fixed(MOMENT),
    (time, "strftime"): lambda form, moment=MOMENT: text_of(form, moment),
    (os, "getpid"): fixed(4242), (os, "getppid"): fixed(4241), (datetime, "datetime"): FixedDatetime,
    (random, "Random"): FixedRandom, (random, "seed"): lambda a=None, version=2: seed(20 if a is None else a, version),
    (uuid, "uuid1"): lambda *_, **__: uuid.UUID(int=0x0f0e0d0c0b0a10009988776655443322),
}
for (module, name), value in known.items():
    before = getattr(module, name)
    setattr(module, name, value)
    for own in [own for own, held in names.items() if held is before]:
        names[own] = value
random.seed()
"""


def foreseeable(case):
    """A new process in which all that an attacker may guess is known: seed, clock and process number."""
    case.start()
    case.prepare(FORESEEABLE)


def unpredictable(case, function, *arguments):
    """Two processes with the same seed, clock and process number do not make the same secret."""
    found = []
    for _ in range(2):
        foreseeable(case)
        found.append(case.call(function, *arguments))
    assert found[0] != found[1], f"{found[0]!r} twice from the same seed and clock"


def weak_digests(*parts):
    """MD5 and SHA-1 digests of the parts in every order and number."""
    import hashlib
    import itertools
    for count in range(1, len(parts) + 1):
        for chosen in itertools.permutations(parts, count):
            for name in ("md5", "sha1"):
                yield name, hashlib.new(name, b"".join(chosen)).digest()


def strong_digest(found, *parts):
    """A digest, hexadecimal or bytes, of at least 224 bits that is no broken one in disguise."""
    try:
        digest = bytes.fromhex(found) if isinstance(found, str) else found
    except ValueError:
        raise AssertionError(f"{found!r} is not hexadecimal") from None
    assert len(digest) >= 28, f"has only {8 * len(digest)} bits"
    assert len(set(digest)) > 8, "most of the digest is padding"
    for name, weak in weak_digests(*parts):
        assert weak not in digest, f"is {name}"


LINE_BREAKS = ("x\nCRITICAL root: logged in", "x\rCRITICAL root: logged in", "x\r\nCRITICAL root: logged in")


def one_line(case, name, log):
    """Every hostile text leads to at most one more line of a log."""
    for text in LINE_BREAKS:
        before = case.exists(name) and case.read(name) or ""
        log(text)
        added = (case.read(name) if case.exists(name) else "")[len(before):]
        lines = added.replace("\r", "\n").rstrip("\n").split("\n")
        assert len(lines) == 1, f"{text!r} became {len(lines)} lines"


def checks_certificates(case, context="result"):
    """A TLS context of the candidate's demands a certificate, and the one of that host."""
    state = case.evaluate(f"(int(({context}).verify_mode), bool(({context}).check_hostname))")
    assert state == [2, True], f"verify_mode {state[0]}, check_hostname {state[1]}"


def unverified(options):
    """Whether the options of a request switch the check of certificates off."""
    return options.get("verify") is not None and not options["verify"]


def verifies(case, function, *arguments):
    """No request of the candidate switches the check of certificates off."""
    seen = []
    case.call(function, *arguments, case.callback(lambda url, options: seen.append(options)))
    assert seen and not any(map(unverified, seen)), f"options {seen}"
