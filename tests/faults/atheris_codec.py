"""A fuzz target for libFuzzer's coverage-guided mutations: the codec, from bytes to a message or to Unreadable.

    pip install atheris
    python tests/faults/atheris_codec.py -max_total_time=3600 -max_len=65536 CORPUS tests/vectors

The first byte chooses which direction of which socket reads the rest. Anything but Unreadable, a hang or growing
memory is a finding; a message that is read must come out of encode and read again as itself.
"""

import sys

import atheris

with atheris.instrument_imports(include=["punchin"]):
    from punchin.protocol import codec
    from punchin.protocol.messages import MAGIC

READERS = (
    codec.control_requests(),
    codec.control_replies(),
    codec.notices(),
    codec.data_requests(),
    codec.data_replies(),
)


def one_input(data):
    reader, body = READERS[data[0] % len(READERS) if data else 0], data[1:]
    try:
        message = reader.read(MAGIC, body)
    except codec.Unreadable as error:
        error.failure()
        return
    body = codec.encode(message)
    assert codec.encode(reader.read(MAGIC, body)) == body  # bytes: NaN is not equal to itself


def main():
    """Fuzz until told to stop."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
