"""Counts the test lines whose numbers, URLs, markup and the like come out of a translator as they went in.

    python -m tests.benchmarks.copying serving/en-de

Prints a row for each kind of span. The exit code is 1 if one was changed, lost or doubled.
"""

import argparse
import sys

import seq2serve

# Kind -> its spans. None of them is in a demo corpus.
SPANS = {
    "numbers": ["8472", "3.14159", "-273.15", "1,048,576", "23:59", "2031-02-28", "0", "+49 171 8234567", "73 000"],
    "symbols": ["$", "`", "[", "^"],
    "IP and MAC addresses": ["10.87.3.254", "172.16.254.1:9443", "fe80::9c2b:41ff:fe0e:77aa", "5E:FF:56:A2:AF:15"],
    "URLs": ["https://shop.example.org/a/b?id=77&lang=xx#top", "http://localhost:9090/metrics", "www.qzx.example"],
    "e-mail addresses": ["jane.q.doe@mail.example.net", "support+eu@xyzzy.example"],
    "variables": ["{zorblax_count}", "{{ states('sensor.foo') }}", "%(total)d", "%2$s", "${QUUX}", "{0:.3f}"],
    "markup": ["<strong>", "</strong>", '<a href="/x?y=1">', "&nbsp;", "<br/>"],
    "names of files and variables": [
        "sensor.attic_humidity_2",
        "docker-compose.yml",
        "/etc/quux/config.d/x.conf",
        "XR2206",
    ],
    "emoji": ["🦊", "👩‍🚀", "🏴‍☠️", "9️⃣", "🫠🫡"],
    "unseen scripts": ["Здравствуйте", "ありがとう", "שלום עולם", "ขอบคุณ", "გამარჯობა"],
}
FRAMES = [
    "{}",
    "Turn on {}",
    "The device {} could not be found.",
    "Set {} to {} and wait.",
    "Is {} open? Close {} now!",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a SavedModel or a serving folder")
    translate = seq2serve.load(parser.parse_args().model)
    failed = False
    for kind, spans in SPANS.items():
        lines = []
        for number, span in enumerate(spans):
            other = spans[(number + 1) % len(spans)]
            lines += [(frame.replace("{}", span, 1).replace("{}", other), span, other) for frame in FRAMES]
        answers = translate([line for line, _, _ in lines])
        wrong = [
            (line, answer)
            for (line, *line_spans), answer in zip(lines, answers, strict=True)
            if any(line.count(span) != answer.count(span) for span in line_spans)
        ]
        print(f"{kind:<32}{len(lines) - len(wrong):>4} of {len(lines)}")
        for line, answer in wrong[:3]:
            print(f"    {line}  ->  {answer}")
        failed = failed or bool(wrong)
    sys.exit(failed)


if __name__ == "__main__":
    main()
