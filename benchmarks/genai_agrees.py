"""onnxruntime-genai loads the folder of a language model as it is, and writes the same tokens.

Run by hand, on an artifact that `steelyard pack` made of a language model:

    .venv/bin/python -m benchmarks.genai_agrees runs/demo-llm/artifact

onnxruntime-genai is installed into a throwaway environment of its own. Both continue the same ids greedily.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from artifact.generate.generator import Generator
from artifact.generate.writer import Wanted

PROMPTS = ("The capital of France is", "Once upon a time", "Water boils at", "A film that")
STEPS = 48

PROGRAM = """
import json, sys, time
import onnxruntime_genai as genai
folder, asked = sys.argv[1], json.loads(sys.argv[2])
model = genai.Model(folder)
found = []
for ids in asked["prompts"]:
    params = genai.GeneratorParams(model)
    params.set_search_options(do_sample=False, max_length=len(ids) + asked["steps"])
    generator = genai.Generator(model, params)
    generator.append_tokens(ids)
    while not generator.is_done():
        generator.generate_next_token()
    found.append([int(token) for token in generator.get_sequence(0)][len(ids):])
print(json.dumps({"version": genai.__version__, "found": found}))
"""


def main() -> None:
    """Print how many of the tokens are the same; exit 1 unless all are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path)
    options = parser.parse_args()
    generator = Generator.open(options.artifact)
    prompts = [list(generator.read(text)) for text in PROMPTS]
    ours = [list(written.tokens) for written in generator.complete(PROMPTS, Wanted(STEPS))]
    with tempfile.TemporaryDirectory(prefix="steelyard-genai-") as folder:
        venv.create(folder, symlinks=True)
        python = Path(folder) / "bin" / "python"
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-qq", "onnxruntime-genai"]
        subprocess.run(pip, check=True)
        asked = json.dumps({"prompts": prompts, "steps": STEPS})
        command = [str(python), "-I", "-c", PROGRAM, str(options.artifact.resolve()), asked]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"onnxruntime-genai does not load it: {done.stderr.strip()[-600:]}")
        told = json.loads(done.stdout.splitlines()[-1])
    print(f"onnxruntime-genai {told['version']}, {options.artifact}")
    equal = 0
    for text, mine, theirs in zip(PROMPTS, ours, told["found"], strict=True):
        same = next((at for at, (one, other) in enumerate(zip(mine, theirs, strict=False)) if one != other), len(mine))
        equal += same == len(mine) == len(theirs)
        print(f"  {text!r}: the first {same} of {len(mine)} tokens are the same ({len(theirs)} from genai)")
    sys.exit(equal < len(PROMPTS))


if __name__ == "__main__":
    main()
