"""Embed a folder of splats and query it by text.

    python examples/embed_and_query.py SPLATS "a red chair"

The model that ships knows a toy world only; --model uni3d-b --download takes a published one.
"""
import argparse

from clipgs_plugin import CLIPGSInferencer
from clipgs_plugin.io import find_splats

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('folder', help='folder of splat files of any format, searched recursively')
parser.add_argument('text')
parser.add_argument('--model', default='clipgs_toy', help='name of tools/list_models.py')
parser.add_argument('--top', type=int, default=5)
args = parser.parse_args()

files = find_splats(args.folder)
if not files:
    raise SystemExit(f'{args.folder}: no splat files; name a folder that has some')

clipgs = CLIPGSInferencer(args.model)
embeddings = clipgs.embed_gaussians(files)   # (n, E) unit vectors: one row a file
query = clipgs.embed_text(args.text)         # (1, E)
scores = (embeddings @ query.T)[:, 0]        # cosines

for score, i in zip(*scores.topk(min(args.top, len(files)))):
    print(f'{score:6.3f}  {files[i]}')
