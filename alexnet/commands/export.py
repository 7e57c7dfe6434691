"""Write the weights of a run to a file that can be used alone.

    python -m alexnet export runs/NAME flowers.safetensors    for predict and evaluate here, and --init
    python -m alexnet export runs/NAME flowers.onnx           for ONNX Runtime and others: pip install -e '.[onnx]' first

The names in a .safetensors file are those of the network's state_dict; for alexnet-torchvision these are torchvision's. Both
kinds of file hold the names of the classes, and how images are prepared. An ONNX graph takes pixels from 0 to 255,
(N, C, H, W), normalises them itself and returns logits.
The last line on standard output is the file's path. Exit status: 0 done, 2 wrong usage or a damaged run.
"""

from pathlib import Path

from minidl.errors import UserError

from .. import onnx_file, weights
from .arguments import Parser, add_source


def main(arguments: list[str]) -> int:
    """Write the file, and return the exit status. Raises UserError for an error that the user can fix."""
    p = Parser("-m alexnet export", __doc__)
    p.usage = "python -m alexnet export [-h] [--checkpoint newest|best] RUN|FILE FILE.safetensors|FILE.onnx"
    add_source(p)
    p.add_argument("file", type=Path, metavar="FILE.safetensors|FILE.onnx", help="where to write; an existing file is replaced")
    args = p.parse_args(arguments)
    writers = {".safetensors": weights.write, ".onnx": onnx_file.write}
    if args.file.suffix.lower() not in writers:
        raise UserError(f"{args.file}: give a name that ends with .safetensors or .onnx")
    loaded = weights.read(args.source, args.checkpoint)
    try:
        writers[args.file.suffix.lower()](args.file, loaded)
    except OSError as error:
        raise UserError(f"cannot write {args.file}: {error.strerror or error}") from None
    print(args.file, flush=True)
    return 0
