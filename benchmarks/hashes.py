"""`make bench-hashes`: the most expensive imported hashes compared with bcrypt at cost 14.

Prints for each format the CPU time of one check as a ratio to bcrypt in the same run. Rounds
alternate between the formats and bcrypt, and the least time of each counts: other processes only
ever add time.
"""

import argparse
import time

from userapi.passwords.legacy_hashes import read_legacy_hash

ROUNDS = 5
BCRYPT_12 = "$2b$12$" + "." * 53
# bcrypt at cost 14 does four times the work of cost 12.
BCRYPT_14_FACTOR = 4
ARGON2_TAIL = "$c29tZXNhbHQxMjM0NTY$AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE"
DJANGO_TAIL = "$salt$AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
SCRYPT_TAIL = "$salt$" + "0f" * 64
# For each format the limits of the budget at different mixes of memory, passes and lanes.
MOST_EXPENSIVE = [
    f"$argon2id$v=19$m=65536,t=10,p=1{ARGON2_TAIL}",
    f"$argon2id$v=19$m=65536,t=3,p=4{ARGON2_TAIL}",
    f"$argon2id$v=19$m=8,t=5000,p=1{ARGON2_TAIL}",
    f"$argon2id$v=19$m=128,t=312,p=16{ARGON2_TAIL}",
    f"pbkdf2_sha256$2200000{DJANGO_TAIL}",
    f"scrypt:65536:8:3{SCRYPT_TAIL}",
    f"scrypt:2:8:640{SCRYPT_TAIL}",
]


def cpu_seconds(text: str) -> float:
    """Return the CPU time of one check, over all threads, in seconds."""
    legacy = read_legacy_hash(text)
    begun = time.process_time()
    legacy.matches(b"password")
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hashes")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    least = dict.fromkeys([BCRYPT_12, *MOST_EXPENSIVE], float("inf"))
    for _ in range(rounds):
        for text in least:
            least[text] = min(least[text], cpu_seconds(text))
    bcrypt_14 = BCRYPT_14_FACTOR * least.pop(BCRYPT_12)
    print(f"bcrypt at cost 14: {bcrypt_14:.2f} s")
    for text, seconds in least.items():
        print(f"{seconds / bcrypt_14:5.2f}  {text[: text.rindex('$')]}")


if __name__ == "__main__":
    main()
