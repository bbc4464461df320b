"""The commands that a new user gets wrong most. Each answer fits on five lines and says what to type."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest
from running import Clipbert

COLUMNS, LINES = 80, 5

# The command, what the answer says, and the word in it that leads on.
MISTAKES = [
    # Another name of a command, a recipe without its option, a setting as an option.
    ("train -r demo_qa", "no such command 'train'", "here it is called finetune"),
    ("evaluate preds.jsonl", "no such command 'evaluate'", "here it is called eval"),
    ("finetune demo_qa", "demo_qa: one word too many", "clipbert finetune --recipe demo_qa"),
    ("finetune", "--recipe is missing", "name a recipe"),
    ("finetune -r demo_qa --batch-size 8", "no such option: --batch-size", "--set train.batch_size=VALUE"),
    ("finetune -r demo_qa --epochs 3", "no such option: --epochs", "--set train.epochs=VALUE"),
    ("help finetune", "no such command 'help'", "COMMAND --help explains one"),
    ("finetune --config demo_qa", "no such option: --config", "--recipe NAME|FILE"),
    ("finetune -r demo_qa --output_dir new", "no such option: --output_dir", "--run DIR"),
    ("finetune -r demo_qa --dry_run", "no such option: --dry_run", "--dry-run"),
    ("finetune -r demo_qa --gpus 2", "no such option: --gpus", "--nproc-per-node N|gpu"),
    ("finetune -r demo_qa --lr 1e-4", "no such option: --lr", "--set train.learning_rate=VALUE"),
    ("finetune -r demo_qa --num-workers 2", "no such option: --num-workers", "--set data.workers=VALUE"),
    ("finetune -r demo_qa --nproc_per_node 2", "no such option: --nproc_per_node", "--nproc-per-node N|gpu"),
    ("report preds.jsonl --out new.html", "no such option: --out", "--output FILE"),
    ("infer --run runs/qa --split test --batch-size 3", "no such option: --batch-size", "--set infer.batch_size=VALUE"),
    ("infer --run runs/qa --split test --epochs 3", "no such option: --epochs", "clipbert infer --help"),
    ("search videos 'a dog' --run runs/search --top many", "--top: it must be a whole number", "clipbert search"),
    ("finetune -r demo_qa --set train.lr=1e-4", "train.lr: unknown key", "did you mean train.learning_rate"),
    ("finetune --resume runs/qa", "runs/qa: one word too many", "finetune --run runs/qa --resume"),
    ("infer --run runs/qa --video a.mp4", "no such option: --video", "clipbert ask --run RUN --video"),
    ("infer --ckpt runs/qa --split test", "no such option: --ckpt", "--run DIR"),
    ("ask --run runs/qa --video a.mp4 --question what?", "no such option: --question", "QUESTION has no option"),
    ("ask --run runs/qa -v a.mp4 what?", "no such option: -v", "--video FILE"),
    ("recipes explain train.lr", "is called 'train.lr'", "did you mean train.learning_rate"),
    ("finetune -r demo_qa --set batch_size=8", "batch_size: unknown key", "did you mean train.batch_size"),
    ("finetune -r demo_qa --set train.batch_size 8", "8: one word too many", "--set train.batch_size=8"),
    ("finetune -r demo_qa --set train.batch_size = 8", "= 8: 2 words too many", "--set train.batch_size=8"),
    ("finetune -r demo_qa --set train.batch_size= 8", "8: one word too many", "--set train.batch_size=8"),
    ("finetune -r demo_qa --set train.batch_size =8", "=8: one word too many", "--set train.batch_size=8"),
    ("finetune -r demo_qa --set train.batch_size", "expected KEY=VALUE", "--set KEY=VALUE"),
    # Habits from other programs.
    ("resume runs/qa", "no such command 'resume'", "here it is called finetune"),
    ("index videos --run runs/search", "no such command 'index'", "here it is called search"),
    ("export runs/qa new", "no such command 'export'", "here it is called runs export"),
    ("show vis_db", "no such command 'show'", "here it is called store show or recipes show"),
    ("list", "no such command 'list'", "clipbert assets ls --help"),
    ("runs list", "no such command 'list'", "clipbert runs ls --help"),
    ("store info vis_db", "no such command 'info'", "clipbert store has the commands verify, scan, ls, show"),
    ("version", "no such command 'version'", "it is an option: clipbert --version"),
    ("finetune -r demo_qa -o new", "no such option: -o", "here it is called --run DIR"),
    ("pretrain -r demo_pretrain --output new", "no such option: --output", "here it is called --run DIR"),
    ("infer --run runs/qa --split test --output_dir new", "no such option: --output_dir", "--output FILE"),
    ("download msrvtt_qa --output new", "no such option: --output", "here it is called --to"),
    ("pack videos -o new", "no such option: -o", "clipbert pack videos/ vis_db/msrvtt"),
    ("demo --output new", "no such option: --output", "small my-demo"),
    ("ask --run runs/qa --video a.mp4 -o new what?", "no such option: -o", "for example: clipbert ask --run"),
    ("infer --model runs/qa --split test", "no such option: --model", "here it is called --run DIR"),
    ("finetune -r demo_qa --model w.pt", "no such option: --model", "--set model.weights.checkpoint=VALUE"),
    ("finetune -r demo_qa --pretrained w.pt", "no such option: --pretrained", "--set model.weights.checkpoint=VALUE"),
    ("finetune -r demo_qa --num_train_epochs 2", "no such option: --num_train_epochs", "--set train.epochs=VALUE"),
    ("finetune -r demo_qa --max_epochs 2", "no such option: --max_epochs", "--set train.epochs=VALUE"),
    ("finetune -r demo_qa --fp16", "no such option: --fp16", "--set train.precision=VALUE"),
    ("finetune -r demo_qa --wandb", "no such option: --wandb", "--set train.trackers=VALUE"),
    ("finetune -r demo_qa --devices 2", "no such option: --devices", "--nproc-per-node N|gpu"),
    ("finetune -r demo_qa --cpu", "no such option: --cpu", "--device cpu|cuda|cuda:N"),
    ("finetune -r demo_qa --data_dir txt_db", "no such option: --data_dir", "--data-root DIR"),
    ("finetune -r demo_qa --train.batch_size 8", "no such option: --train.batch_size", "--set train.batch_size=VALUE"),
    ("infer --run runs/qa --split test --infer.top 2", "no such option: --infer.top", "--set infer.top=VALUE"),
    ("search videos 'a dog' --run runs/search -k 5", "no such option: -k", "here it is called --top N"),
    ("finetune -r demo_qa --resume=runs/qa", "'--resume' does not take a value", "--run names the run"),
    ("eval preds.jsonl --json=true", "'--json' does not take a value", "give --json alone"),
    ("infer --run runs/qa --split test --overwrite=1", "does not take a value", "give --overwrite alone"),
    (
        "finetune -r demo_qa train.epochs=2",
        "train.epochs=2: one word too many",
        "finetune --recipe demo_qa --set train.epochs=2",
    ),
    ("finetune -r demo_qa --set seed=1 train.epochs=2", "one word too many", "--set seed=1 --set train.epochs=2"),
    ("finetune demo_qa train.epochs=2 seed=1", "3 words", "--recipe demo_qa --set train.epochs=2 --set seed=1"),
    ("infer --run runs/qa --split test infer.top=2", "one word too many", "--split test --set infer.top=2"),
    ("eval preds.jsonl demo_qa test", "2 words", "clipbert eval preds.jsonl --recipe demo_qa --split test"),
    ("eval preds.jsonl other.jsonl", "one word too many", "eval preds.jsonl --against other.jsonl"),
    ("report preds.jsonl other.jsonl -o new.html", "one word", "--output new.html --against other.jsonl"),
    ("eval preds.jsonl test --recipe demo_qa", "one word too many", "eval preds.jsonl --recipe demo_qa --split test"),
    ("eval preds.jsonl txt_db/test.jsonl", "one word too many", "the truth comes from --recipe and --split"),
    ("eval preds.jsonl table.csv", "one word too many", "the truth comes from --recipe and --split"),
    ("report preds.jsonl txt_db/answers.json -o new.html", "one word", "the truth comes from --recipe and --split"),
    ("eval preds.jsonl runs/qa", "one word too many", "clipbert eval preds.jsonl --run runs/qa"),
    ("finetune --run runs/qa --resume train.epochs=5", "one word", "--run runs/qa --resume --set train.epochs=5"),
    # Arguments with options before them, options with one dash, options that no command needs.
    ("eval --preds preds.jsonl", "no such option: --preds", "PREDS has no option before it"),
    ("report --predictions preds.jsonl", "no such option: --predictions", "PREDS has no option before it"),
    ("pack --input videos --output new", "no such option: --input", "clipbert pack videos/ vis_db/msrvtt"),
    ("search --query 'a dog' videos --run runs/search", "no such option: --query", "TEXT has no option before it"),
    ("recipes show --recipe demo_qa", "no such option: --recipe", "clipbert recipes show msrvtt_qa"),
    ("download --dataset msrvtt_qa", "no such option: --dataset", "ASSET has no option before it"),
    ("runs export --run runs/qa new", "no such option: --run", "RUN has no option before it"),
    ("infer -run runs/qa --split test", "-run: an option of several letters has two dashes", "--run in its place"),
    ("finetune -recipe demo_qa", "-recipe: an option of several letters", "--recipe in its place"),
    ("ask --run runs/qa -video=a.mp4 what?", "-video=a.mp4: an option of several letters", "--video in its place"),
    ("finetune -r demo_qa --overwrite", "no such option: --overwrite", "a run is never replaced"),
    ("pretrain -r demo_pretrain --force", "no such option: --force", "continue it with --resume"),
    ("pack videos vis_db --overwrite", "no such option: --overwrite", "add to it with --add"),
    ("demo --overwrite", "no such option: --overwrite", "here it is called --force"),
    ("finetune -r demo_qa --quiet", "no such option: --quiet", "2>/dev/null leaves out"),
    ("infer --run runs/qa --split test -q", "no such option: -q", "2>/dev/null leaves out"),
    ("finetune -r demo_qa -v", "no such option: -v", "clipbert --debug COMMAND"),
    # Habits from the original program.
    ("finetune --train_txt_db txt_db", "no such option: --train_txt_db", "--set data.splits.NAME.annotations=VALUE"),
    ("infer --run runs/qa --inference_split test", "no such option: --inference_split", "--split NAME"),
    ("infer --run runs/qa --inference_n_clips 3", "no such option: --inference_n_clips", "--set infer.num_clips=VALUE"),
    ("infer --run runs/qa --ckpt best --split test", "no such option: --ckpt", "--checkpoint best|latest|step_N"),
    ("finetune -r demo_qa --set train.num_train_epochs=2", "unknown key", "did you mean train.epochs"),
    ("run_video_qa.py --config msrvtt_qa.json", "no such command 'run_video_qa.py'", "here it is called finetune"),
    ("run_pretrain.py --config a.json", "no such command 'run_pretrain.py'", "here it is called pretrain"),
    ("finetune -r configs/msrvtt_qa.json", "configs/msrvtt_qa.json: no such recipe file", "an ending: msrvtt_qa"),
    ("finetune -r demo_qa --do_inference 1", "no such option: --do_inference", "clipbert infer --help"),
    ("infer --run runs/qa --split test --do_inference 1", "no such option: --do_inference", "a command of its own"),
    # Words in another place.
    ("store vis_db", "no such command 'vis_db'", "clipbert store verify|scan|ls|show vis_db"),
    ("runs runs/qa", "no such command 'runs/qa'", "a command stands before it: clipbert runs ls|"),
    ("recipes demo_qa", "no such command 'demo_qa'", "|validate demo_qa"),
    ("finetune help", "help: one word too many", "clipbert finetune --help explains"),
    ("infer --checkpoint runs/qa/best --split test", "--run is missing", "infer --run runs/qa/best --split test"),
    ("ask runs/qa a.mp4 'what is it?'", "--run is missing", "clipbert ask --run runs/qa a.mp4 'what is it?'"),
    ("search --split runs/search videos dog", "no such option: --split", "clipbert search"),
    ("search videos runs/search", "--run is missing", "clipbert search videos --run runs/search"),
    ("search --run runs/search 'a dog'", "TEXT is missing: clipbert search takes MEDIA TEXT", "clipbert search clips/"),
    ("store show vis_db", "MEDIA_ID is missing: clipbert store show takes STORE MEDIA_ID", "clipbert store show"),
    ("finetune --resume", "--run is missing: --resume continues a run", "--run runs/NAME --resume"),
    ("pretrain --resume", "--run is missing: --resume continues a run", "--run runs/NAME --resume"),
    ("infer --run runs/qa --split test -o out/", "out/ is a folder, but must be a file", "name a file in it"),
    ("report preds.jsonl --run runs/qa -o pages/", "pages/ is a folder, but must be a file", "name a file in it"),
    ("recipes copy demo_qa mine/", "mine/ is a folder, but must be a file", "name a file in it"),
    ("store show vis_db test0000 a.png", "--output is missing", "-o contact.png"),
    ("store ls runs/qa", "runs/qa is a folder without data.mdb", "the folder of a run: name a store"),
    ("store verify runs/search", "not a store", "it is the folder of a run"),
    ("store show runs/qa/ test0000 -o a.png", "not a store", "it is the folder of a run"),
    ("infer --run runs/qa --split test -f json", "no such option: -f", "--overwrite or --format NAME"),
    ("infer --run runs/qa --split test --limit 10", "no such option: --limit", "a shorter file with --set data.splits"),
    ("preview --recipe demo_qa --split val --limit 3", "no such option: --limit", "here it is called --examples N"),
    ("download msrvtt_qa --data-root data", "no such option: --data-root", "here it is called --to DATA"),
    # Values.
    (
        "finetune -r demo_qa --set train.precision=half",
        "it must be auto, bf16, fp16 or fp32",
        "explain train.precision",
    ),
    ("finetune -r demo_qa --set data.num_clips=0", "it must be", "clipbert recipes explain data.num_clips"),
    ("recipes validate demo_qa --set train.betas=0.9", "it must be a list", "recipes explain train.betas"),
    ("finetune -r demo_qa --nproc-per-node 0", "--nproc-per-node is 0", "for example --nproc-per-node 2"),
    ("infer --run runs/qa --split test --nproc-per-node two", "--nproc-per-node is two", "--nproc-per-node 2"),
    ("infer --run runs/qa --checkpoint 4 --split test", "no checkpoint '4'; it has step_2, step_4", "step_N"),
    # Something else than a recipe.
    ("finetune -r demo", "no shipped recipe is called 'demo'; did you mean demo_qa", "clipbert recipes ls"),
    ("finetune -r demo_qa.yaml", "demo_qa.yaml: no such recipe file", "without an ending: demo_qa"),
    ("finetune -r https://example.com/mine.yaml", "no such recipe file", "curl -LO https://example.com/mine.yaml"),
    ("finetune -r nope.yaml", "nope.yaml: no such recipe file", "clipbert recipes ls"),
    ("finetune -r runs/qa", "runs/qa is the folder of a run, not a recipe", "--run runs/qa --resume"),
    ("recipes show runs/qa", "runs/qa is the folder of a run, not a recipe", "name its recipe, runs/qa/recipe.yaml"),
    ("eval preds.jsonl --recipe runs/qa --split test", "the folder of a run", "name its recipe, runs/qa/recipe.yaml"),
    ("preview --recipe runs/qa/ --split val -o a.html", "the folder of a run", "name its recipe, runs/qa/recipe.yaml"),
    ("recipes validate ./runs/qa", "the folder of a run", "name its recipe, runs/qa/recipe.yaml"),
    ("finetune -r txt_db/train.jsonl", "not YAML", "clipbert recipes copy NAME mine.yaml"),
    ("recipes answers videos/test0000.mp4", "not UTF-8", "a recipe is a file of YAML"),
    (
        "recipes answers txt_db/answers.json",
        "none of its 13 keys is a setting",
        "names files such as txt_db",
    ),
    ("recipes validate table.csv", "table.csv holds a single value", "names files such as table.csv under data.splits"),
    ("recipes validate tabs.yaml", "tabs.yaml:2:1: not YAML: a tab", "expand -t 2 tabs.yaml"),
    ("finetune -r videos", "videos is a folder, not a recipe", "clipbert recipes ls"),
    ("recipes validate vis_db", "vis_db is a folder, not a recipe", "clipbert recipes ls"),
    ("pretrain -r .", ". is a folder, not a recipe", "clipbert recipes ls"),
    # Data that are elsewhere.
    ("finetune -r msrvtt_qa", "the environment variable DATA is not set", "clipbert download msrvtt_qa --to DIR"),
    ("pretrain -r pretrain_coco_vg", "DATA is not set", "clipbert download pretrain_coco_vg --to DIR"),
    ("finetune -r msrvtt_qa --data-root empty", "nothing that the recipe names is in", "clipbert download msrvtt_qa"),
    ("finetune -r demo_qa --run new --data-root nowhere", "nothing that the recipe names", "with --data-root DIR"),
    ("pretrain -r demo_pretrain --run new --data-root videos", "/videos: txt_db/", "with --data-root DIR"),
    ("finetune -r demo_qa --run new --data-root runs --dry-run", "nothing that the recipe", "with --data-root DIR"),
    ("finetune -r demo_qa --run new --set data.answers=a.json", "a.json: no such answer vocabulary", "recipes answers"),
    (
        "finetune -r demo_qa --run new --set data.workers=200 --set data.splits.val.annotations=nope",
        "nope: no such annotation file",
        "check data.splits",
    ),
    ("finetune -r video_qa", "recipe video_qa names no data", "clipbert recipes copy video_qa mine.yaml"),
    ("finetune -r retrieval --data-root .", "recipe retrieval names no data", "clipbert recipes copy retrieval"),
    ("pretrain -r pretraining", "recipe pretraining names no data", "clipbert recipes copy pretraining mine.yaml"),
    (
        "finetune -r demo_qa --set data.splits.train=a.jsonl",
        "must be a section",
        "--set data.splits.train.annotations=",
    ),
    ("eval preds.jsonl -r demo_qa --split test --set data.splits.test=b", "section", "data.splits.test.annotations="),
    ("recipes validate demo_mc --set data.splits.val=true", "must be a section", "--set data.splits.val.media=FOLDER"),
    # A task that another command trains.
    ("pretrain -r demo_qa", "has task open_ended_qa, which clipbert pretrain", "clipbert finetune --recipe demo_qa"),
    ("pretrain -r msrvtt_qa", "which clipbert pretrain does not train", "clipbert finetune --recipe msrvtt_qa"),
    ("pretrain -r demo_mc --run new --json", "does not train", "clipbert finetune --recipe demo_mc --run new --json"),
    ("pretrain -r retrieval", "which clipbert pretrain does not train", "clipbert finetune --recipe retrieval"),
    ("finetune -r demo_pretrain", "which clipbert finetune does not train", "clipbert pretrain --recipe demo_pretrain"),
    ("finetune -r pretraining --dry-run", "does not train", "clipbert pretrain --recipe pretraining --dry-run"),
    ("finetune -r demo_qa --run new --set data.splits.train.media=nope", "nope does not exist", "clipbert pack"),
    ("finetune -r demo_qa --run new --set data.fields.question=q", "no record has q", "--set data.fields.question="),
    # Runs: one that is there, one that is not, one level too high or too low.
    ("finetune -r demo_qa --run runs/qa", "run folder runs/qa exists already", "--resume"),
    (
        "finetune -r demo_qa --run videos",
        "videos exists already and is a folder that is no run",
        "a new folder with --run",
    ),
    ("finetune --run runs/new --resume", "there is no run in runs/new", "begin one with --recipe"),
    ("infer --run qa --split test", "qa is not a run folder", "there is a run runs/qa"),
    ("infer --run runs/q --split test", "runs/q is not a run folder", "there is a run runs/qa"),
    ("runs export serach new", "serach is not a run folder", "there is a run runs/search"),
    ("infer --run nothing --split test", "nothing is not a run folder", "clipbert runs ls"),
    ("infer --run runs --split test", "runs is not a run folder", "for example runs/qa"),
    ("infer --run . --split test", ". is not a run folder", "for example runs/qa or runs/search"),
    ("ask --run ../day --video a.mp4 what?", "../day is not a run folder", "for example ../day/runs/qa"),
    ("runs plot .", ". is not a run folder", "for example runs/qa or runs/search"),
    ("runs plot runs/qa/best", "not a run folder", "it is in the run runs/qa"),
    ("runs export runs/qa/checkpoints new", "not a run folder", "it is in the run runs/qa"),
    ("infer runs/qa --split test", "--run is missing", "clipbert infer --run runs/msrvtt_qa --split test"),
    ("infer --run runs/qa", "--split is missing", "--split test"),
    ("infer --run test --split runs/qa", "--run is test, which is no run", "exchange them: --run runs/qa --split test"),
    ("infer --run videos --split runs/qa/best", "--split is runs/qa/best, the folder of one", "--run runs/qa/best"),
    (
        "infer --run val --split runs/search/",
        "--split is runs/search/",
        "exchange them: --run runs/search/ --split val",
    ),
    ("eval preds.jsonl --run test --split runs/qa", "--run is test, which is no run", "--run runs/qa --split test"),
    ("report preds.jsonl --run test --split runs/qa -o new.html", "--run is test, which is no run", "exchange them"),
    ("infer --run runs/qa --split runs/qa", "no split 'runs/qa'; it has train, val, test", "name another split"),
    ("infer --run runs/qa --split dev", "no split 'dev'; it has train, val, test", "or add data.splits.dev"),
    ("infer --run nothing --split test -o preds.jsonl", "nothing is not a run folder", "clipbert runs ls"),
    ("infer --run runs/qa --split dev -o preds.jsonl", "no split 'dev'", "name another split"),
    ("infer --run runs/qa --split test -r demo_q -o preds.jsonl", "no shipped recipe is called", "demo_qa"),
    ("infer --run runs/qa --split val --set seed=3 -o preds.jsonl", "has no effect", "leave it out"),
    ("report preds.jsonl --run runs/qa --split dev -o notes.txt", "no split 'dev'", "name another split"),
    ("preview --recipe demo_qa --split dev -o notes.txt", "no split 'dev'", "name another split"),
    ("infer --run runs/qa --split test -o preds.jsonl", "preds.jsonl exists already", "--overwrite"),
    ("infer --run runs/qa --split test -o out/p.jsonl", "out is no folder", "mkdir -p out"),
    ("infer --run runs/qa --split test --set train.epochs=3", "has no effect", "leave it out"),
    ("runs ls nope", "nope: no such folder", "clipbert runs ls FOLDER"),
    ("runs plot runs", "runs is not a run folder", "for example runs/qa"),
    # Media, stores and the order of arguments.
    ("pack videos", "SRC is missing: clipbert pack takes SRC STORE", "clipbert pack videos/ vis_db/msrvtt"),
    ("pack vis_db videos", "videos exists and is no store", "the new store comes last"),
    ("pack videos vis_db", "vis_db exists", "--add"),
    ("pack vis_db new", "vis_db is a store, not a folder of media files", "clipbert store ls vis_db"),
    ("pack ./vis_db/ new", "vis_db is a store", "name the folder that it was packed from"),
    ("pack nope new", "nope does not exist", "name existing folders or media files"),
    ("pack 'clips/*.mp4' new", "clips/*.mp4 does not exist", "without quotes"),
    ("ask --run runs/qa --video '*.mov' what?", "no such video file: *.mov", "without quotes"),
    ("search 'clips/*' 'a dog' --run runs/search", "clips/* does not exist", "without quotes"),
    ("store verify 'vis_*'", "vis_* does not exist", "without quotes"),
    ("pack empty new", "there are no files in empty", "name the folder that holds the media files"),
    ("pack txt_db new", "has the ending of a video or an image", "--kind"),
    ("pack https://example.com/a.mp4 new", "an address", "curl -LO https://example.com/a.mp4"),
    ("store ls videos", "videos is a folder without data.mdb, not a store", "clipbert pack videos"),
    ("store show vis_db test0000", "--output is missing", "-o contact.png"),
    ("store show vis_db test0000.mp4 -o a.png", "no video 'test0000.mp4'", "the id is 'test0000'"),
    ("preview demo_qa", "MEDIA is demo_qa, a shipped recipe", "clipbert preview --recipe demo_qa --split train"),
    ("preview train", "train does not exist", "clipbert preview --recipe NAME --split NAME"),
    ("preview videos2/", "videos2 does not exist", "name a folder of media files or a store"),
    (
        "search vis 'a dog' --run runs/search",
        "vis does not exist",
        "a folder of media files or a store",
    ),
    ("preview 'vid*'", "vid* does not exist", "without quotes"),
    ("preview runs/qa", "MEDIA is runs/qa, the folder of a run", "--recipe runs/qa/recipe.yaml --split train"),
    ("search demo_retrieval 'a dog' --run runs/search", "a shipped recipe", "clipbert preview --recipe demo_retrieval"),
    ("search runs/qa 'a dog' --run runs/search", "the folder of a run", "a folder of media files or a store"),
    ("demo smallest", "FOLDER is smallest, a value of --size", "clipbert demo --size smallest"),
    ("demo full --task mc", "FOLDER is full, a value of --size", "clipbert demo --size full"),
    ("demo retrieval", "FOLDER is retrieval, a value of --task", "clipbert demo --task retrieval"),
    # Questions and searches.
    ("ask --run runs/qa --video a.mp4 what is this", "QUESTION is 3 words", "--video a.mp4 'what is this'"),
    ("ask --run runs/qa --video a.mp4 what is this?", "QUESTION is 3 words", "--video a.mp4 'what is this?'"),
    ("ask what is it --video a.mp4 --run runs/qa --json", "QUESTION is 3 words", "--json --video a.mp4 'what is it'"),
    ("ask --run runs/qa --video a.mp4 videos/test0001.mp4 who ran", "2 words", "--video videos/test0001.mp4 'who ran'"),
    ("search videos a dog jumps --run runs/search --top 2", "TEXT is 3 words", "search videos --run runs/search"),
    ("search videos red circle --run runs/search", "TEXT is 2 words: red circle", "'red circle'"),
    ("ask --run runs/qa --video a.mp4 b.mp4 'what is it?'", "b.mp4 stands where a question", "check the name"),
    ("ask --run runs/qa --video a.mp4 'what is it?' --json out.json", "out.json stands where a question", "> FILE"),
    ("ask --run runs/qa --image a.jpg what? b.jpeg", "b.jpeg stands where a question", "check the name"),
    ("ask --run runs/qa --video a.mp4 what? notes.txt", "notes.txt is a file", "--video or --image before it"),
    ("ask --run runs/qa --video a.mp4 preds.jsonl what?", "preds.jsonl is a file", "--video or --image before it"),
    (
        "ask --run runs/qa --video vis_db what?",
        "vis_db, which is a store",
        "clipbert infer --run runs/qa --split SPLIT",
    ),
    ("ask --run runs/qa --image vis_db/ what?", "vis_db/, which is a store", "name a file that was packed"),
    ("ask --run runs/qa --video a.mp4 --video vis_db what?", "vis_db, which is a store", "clipbert infer"),
    ("ask --video a.mp4 what?", "--run is missing", "clipbert ask --run runs/msrvtt_qa --video cat.mp4"),
    ("ask --run runs/qa what?", "--video or --image is missing", "--video cat.mp4"),
    ("ask --run runs/qa --video a.mp4", "QUESTION is missing", "what is the cat doing?"),
    ("ask --run runs/qa --video cat.mp4 what?", "no such video file: cat.mp4", "check the names"),
    ("ask --run runs/qa --video videos what?", "videos, which is a folder", "--video videos/*"),
    ("ask --run runs/qa --questions videos", "--questions is videos, which cannot be read", "a file of JSON lines"),
    ("ask --run runs/qa --questions /dev/zero", "--questions is /dev/zero, a device", "a file of JSON lines"),
    ("ask --run runs/qa --questions nope.jsonl", "No such file", "a file of JSON lines"),
    ("ask --run runs/qa --video notes.txt what?", "video 'notes.txt'", "--image before a picture"),
    ("ask --run runs/qa --image a.mp4 what?", "image 'a.mp4'", "--video before a video"),
    ("ask --run a.mp4 --video runs/qa what?", "--video is runs/qa, the folder of a run", "--run runs/qa --video a.mp4"),
    ("ask --run a.mp4 --image runs/qa what?", "--image is runs/qa, the folder of a run", "--run runs/qa --image a.mp4"),
    ("ask --run a.mp4 --video a.mp4 what?", "a.mp4 is not a run folder: it is a file", "clipbert runs ls"),
    ("ask --run runs/qa --video 'what is it?' a.mp4", "'what is it?', which is no file", "--video a.mp4 'what is it?'"),
    ("ask --run runs/qa a.mp4 --image 'what is it?'", "'what is it?', which is no file", "--image a.mp4 'what is it?'"),
    ("ask --run runs/qa what? a.mp4", "a.mp4 is a file, but stands where a question", "--video or --image before it"),
    ("ask --run runs/search --video a.mp4 what?", "answers no questions", "clipbert search FOLDER"),
    ("search 'a dog' videos --run runs/search", "MEDIA is a dog", "clipbert search videos 'a dog' --run runs/search"),
    ("search videos 'a dog' --run runs/qa", "needs a retrieval run", "a retrieval run with --run"),
    # Scores, downloads, devices.
    ("eval --recipe demo_qa --split test", "PREDS is missing", "clipbert eval preds.jsonl"),
    ("eval txt_db/train.jsonl --recipe demo_qa --split test", "media_id is null", "clipbert infer"),
    ("eval table.csv --run runs/qa --split test", "table.csv is not a predictions file", "clipbert infer"),
    ("eval txt_db/answers.json --run runs/qa --split test", "is not a predictions file", "clipbert infer"),
    ("eval runs/qa/recipe.yaml --run runs/qa --split test", "is not a predictions file", "clipbert infer"),
    ("eval table.csv --split test", "what made the predictions is unknown", "clipbert eval preds.jsonl --recipe"),
    ("preview runs/qa/recipe.yaml", "recipe.yaml is a recipe, not a store", "with --recipe"),
    ("preview table.csv", "table.csv is a file of annotations, not a store", "name the folder or store"),
    ("preview a.mp4", "a.mp4 is a single media file, not a store", "name the folder that holds it"),
    ("search a.mp4 'a dog' --run runs/search", "a.mp4 is a single media file", "name the folder that holds it"),
    ("store ls txt_db/train.jsonl", "train.jsonl is a file of annotations", "name the folder or store"),
    ("preview empty", "there are no files in empty", "name the folder that holds the media files"),
    ("eval preds.jsonl --recipe demo_qa --split val", "belongs to this split", "name the split and the recipe"),
    ("eval runs/qa", "runs/qa is a folder, not a predictions file", "clipbert infer"),
    ("eval a.mp4 --run runs/qa --split test", "a.mp4 is a media file, not a predictions file", "clipbert infer"),
    ("report a.mp4 --run runs/qa --split test -o new.html", "a.mp4 is a media file", "clipbert infer"),
    ("eval images/test0000.jpg --recipe demo_mc --split val", "images/test0000.jpg", "clipbert infer"),
    ("eval nope.jsonl --run runs/qa", "nope.jsonl: no such predictions file", "clipbert infer"),
    ("report nope.jsonl -o new.html", "nope.jsonl: no such predictions file", "clipbert infer"),
    ("runs plot runs/qa -o curves.txt", "--output is curves.txt", "name a .png file"),
    ("eval runs/qa --recipe demo_qa --split test", "runs/qa is a folder, not a predictions file", "clipbert infer"),
    ("download msrvtt-qa", "similar names: msrvtt_qa", "clipbert assets ls"),
    ("demo videos", "videos is not empty", "name another folder"),
    ("finetune -r demo_qa --run new --device gpu", "--device is 'gpu'", "cpu, cuda or cuda:N"),
    ("finetune -r demo_qa --run new --nproc-per-node gpu", "finds no GPU", "--nproc-per-node 2"),
]


@pytest.fixture(scope="module")
def world(trained_run: Path, retrieval_run: Path, made_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as it looks after the first day: data, two runs, predictions, a video and notes. Not to be changed."""
    folder = tmp_path_factory.mktemp("first") / "day"
    shutil.copytree(made_data, folder)
    shutil.copytree(trained_run, folder / "runs/qa", symlinks=True)
    shutil.copytree(retrieval_run, folder / "runs/search", symlinks=True)
    shutil.copy(folder / "videos/test0000.mp4", folder / "a.mp4")
    (folder / "notes.txt").write_text("mine\n")
    (folder / "table.csv").write_text("video_id,question,answer\ntest0000,what ?,red\n")
    (folder / "tabs.yaml").write_text("data:\n\troot: .\n")
    (folder / "empty").mkdir()
    return folder


@pytest.fixture(scope="module")
def predicted(clipbert: Clipbert, world: Path) -> Path:
    done = clipbert("infer", "--run", "runs/qa", "--split", "test", "-o", "preds.jsonl", cwd=world)
    assert done.returncode == 0, done.stderr
    return world


@pytest.mark.parametrize(("command", "message", "leads_on"), MISTAKES, ids=[command for command, *_ in MISTAKES])
def test_the_answer_to_a_first_mistake_is_short_and_leads_on(
    clipbert: Clipbert, predicted: Path, monkeypatch: pytest.MonkeyPatch, command: str, message: str, leads_on: str
) -> None:
    monkeypatch.delenv("DATA", raising=False)
    before = sorted(predicted.rglob("*"))
    done = clipbert(*shlex.split(command), cwd=predicted, COLUMNS=str(COLUMNS))
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    shown = sum(-(-len(line) // COLUMNS) for line in done.stderr.splitlines())
    assert shown <= LINES, done.stderr
    said, _, following = " ".join(done.stderr.split()).partition(" next: ")
    assert message in said
    # The hint may be in the message where it is a part of what is wrong, such as the nearest name.
    assert following
    assert leads_on in f"{said} {following}"
    assert sorted(predicted.rglob("*")) == before
