"""Label what nerfstudio's Splatfacto has captured, without training.

    python examples/splatfacto_to_labels.py FILE --classes chair,mug,car --up z

FILE is the ply of `ns-export gaussian-splat`. Nerfstudio's scenes have z up. A capture holds its surroundings too, so
the largest connected part is taken as the object unless --whole is given.
"""
import argparse

from clipgs_plugin import CLIPGSInferencer, read_gaussians
from clipgs_plugin.datasets.transforms import LargestCluster
from clipgs_plugin.ops import axis_change

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument('file', help='splat file')
parser.add_argument('--classes', required=True, help='class names, separated by commas')
parser.add_argument('--up', default='z', choices=['x', 'y', 'z', '-x', '-y', '-z'], help='up axis of the scene')
parser.add_argument('--whole', action='store_true', help='label the whole scene')
parser.add_argument('--model', default='clipgs_toy', help='name of tools/list_models.py')
args = parser.parse_args()

cloud = read_gaussians(args.file).transform(axis_change(args.up, 'y'))
count = len(cloud)
if not args.whole:
    cloud = LargestCluster()({'gaussians': cloud})['gaussians']
print(f'{args.file}: {len(cloud):,} of {count:,} Gaussians')

clipgs = CLIPGSInferencer(args.model)
# The turn about the up axis is unknown, so embeddings of four turns are averaged.
for name, probability in clipgs.classify(cloud, args.classes.split(','), turns=4)[0]:
    print(f'{probability:6.3f}  {name}')
