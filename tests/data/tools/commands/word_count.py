import json
import sys

arguments = json.load(sys.stdin)
print(len(arguments["text"].split()))
