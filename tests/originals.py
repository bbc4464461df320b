"""Files in the true original formats, all fields, with made content."""

TRAIN, VAL = "COCO_train2014_{:012d}", "COCO_val2014_{:012d}"


def karpathy(raw, *images):
    """(stem, split) of dataset_coco.json."""
    raw(
        "caption_datasets/dataset_coco.json",
        {
            "images": [
                {
                    "filepath": stem.split("_")[1],
                    "filename": f"{stem}.jpg",
                    "split": split,
                    "cocoid": int(stem[-12:]),
                    "imgid": n,
                    "sentids": [n],
                    "sentences": [{"tokens": ["a"], "raw": "a", "imgid": n, "sentid": n}],
                }
                for n, (stem, split) in enumerate(images)
            ],
            "dataset": "coco",
        },
    )


def coco_captions(*items):
    """(image id, caption) as captions_train2014.json has them."""
    return {
        "info": {},
        "licenses": [],
        "images": [{"id": image, "file_name": "x.jpg", "height": 1, "width": 1} for image, _ in items],
        "annotations": [{"image_id": image, "id": n, "caption": text} for n, (image, text) in enumerate(items)],
    }


def genome(raw, images, regions):
    """(image, coco_id, flickr_id) of image_data.json, (image, phrases) of region_descriptions.json."""
    raw(
        "image_data.json",
        [
            {"image_id": n, "url": "https://x", "width": 8, "height": 6, "coco_id": coco, "flickr_id": flickr}
            for n, coco, flickr in images
        ],
    )
    raw(
        "region_descriptions.json",
        [
            {
                "id": n,
                "regions": [
                    {"region_id": 10 * n + k, "image_id": n, "phrase": p, "x": 0, "y": 0, "width": 1, "height": 1}
                    for k, p in enumerate(phrases)
                ],
            }
            for n, phrases in regions
        ],
    )


def genome_questions(image, *items):
    """(qa_id, question, answer): an entry of question_answers.json."""
    return {
        "id": image,
        "qas": [
            {"qa_id": n, "image_id": image, "question": text, "answer": answer, "a_objects": [], "q_objects": []}
            for n, text, answer in items
        ],
    }


def vqa_year(raw, year, items):
    """(image, question_id, question, ten answers, main answer, type): a year's questions and annotations."""
    raw(
        f"v2_OpenEnded_mscoco_{year}_questions.json",
        {
            "info": {},
            "task_type": "Open-Ended",
            "data_type": "mscoco",
            "questions": [{"image_id": i, "question": text, "question_id": q} for i, q, text, *_ in items],
        },
    )
    raw(
        f"v2_mscoco_{year}_annotations.json",
        {
            "info": {},
            "annotations": [
                {
                    "question_type": "what is",
                    "multiple_choice_answer": main,
                    "answers": [
                        {"answer": a, "answer_confidence": "yes", "answer_id": n} for n, a in enumerate(answers, 1)
                    ],
                    "image_id": i,
                    "answer_type": kind,
                    "question_id": q,
                }
                for i, q, _, answers, main, kind in items
            ],
        },
    )


def sentences(*items):
    """(video number, sen_id, caption) in the original file's form."""
    numbers = dict.fromkeys(n for n, _, _ in items)
    return {
        "info": {"year": "2016"},
        "videos": [
            {
                "category": 9,
                "url": "https://www.youtube.com/watch?v=x",
                "video_id": f"video{n}",
                "start time": 1.5,
                "end time": 9.0,
                "split": "train",
                "id": n,
            }
            for n in numbers
        ],
        "sentences": [{"caption": text, "video_id": f"video{n}", "sen_id": s} for n, s, text in items],
    }


def original_qa(first_id, *items):
    """(video number, question, answer) as MSRVTT-QA's train_qa.json has them."""
    return [
        {"answer": answer, "category_id": 14, "id": first_id + n, "question": question, "video_id": video}
        for n, (video, question, answer) in enumerate(items)
    ]


def didemo(video, text, *times, number=32434):
    """An entry of train_data.json."""
    return {
        "annotation_id": number,
        "description": text,
        "video": video,
        "times": [list(pair) for pair in times] or [[0, 0]],
        "dl_link": "https://www.flickr.com/video_download.gne?id=6060447507",
        "num_segments": 6,
    }


def table(*rows):
    """Rows as TGIF-QA's tables have them."""
    return ("\r\n".join(rows) + "\r\n").encode()
