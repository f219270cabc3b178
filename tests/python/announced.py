"""What Fluxline tells SciCat and ICAT, against the programs that facilities tell them with: pyscicat's models and the
document type of pyicat-plus.

    announced.py SCICAT.json ICAT.xml run.json
"""

import json
import sys

from pyscicat.model import CreateDatasetOrigDatablockDto, RawDataset

scicat, icat, run = sys.argv[1:]
run = json.load(open(run))
told = json.load(open(scicat))
dataset = RawDataset(**told["dataset"])
assert dataset.datasetName == run["id"] and dataset.sampleId == run["sample"], dataset
assert dataset.scientificMetadata["energy_kev"]["value"] == "12.4"
# SciCat itself takes the name of the hash as text; this model wants a number.
assert told["origdatablock"].pop("chkAlg") == "blake3"
block = CreateDatasetOrigDatablockDto(**told["origdatablock"])
files = {file.path: file for file in block.dataFileList}
for file in run["files"]:
    assert files[file["name"]].size == file["bytes"] and files[file["name"]].chk == file.get("hash", file.get("sha256")), file
assert block.size == sum(file.size for file in block.dataFileList) == dataset.size
assert dataset.numberOfFiles == len(files)

from pyicat_plus._icat_messaging.models.xsd.dataset import Dataset
from xsdata.formats.dataclass.parsers import XmlParser
from xsdata.formats.dataclass.parsers.config import ParserConfig

parser = XmlParser(config=ParserConfig(fail_on_unknown_properties=True, fail_on_converter_warnings=True))
ours = parser.parse(icat, Dataset)
assert (ours.name, ours.investigation, ours.instrument) == (run["id"], run["proposal"], run["instrument"]), ours
assert ours.sample.name == run["sample"] and ours.complete is True, ours
assert ours.location == dataset.sourceFolder, ours.location
values = {parameter.name: parameter.value for parameter in ours.parameter}
assert values["energy_kev"] == "12.4" and values["Sample_name"] == run["sample"], values
assert str(ours.start_date.to_datetime().astimezone().isoformat()) and ours.start_date <= ours.end_date
