"""What other training programs, the original ClipBERT among them, call the settings of a recipe."""

from __future__ import annotations

_OTHER_NAMES = {
    "data.splits.NAME.annotations": "txt_db train_txt_db val_txt_db inference_txt_db train_datasets val_datasets "
    "train_file annotation_file",
    "data.splits.NAME.media": "img_db vis_db train_img_db val_img_db inference_img_db video_dir image_dir",
    "data.answers": "ans2label ans2label_path",
    "data.frame_size": "image_size img_size resolution max_img_size",
    "data.sampling": "frm_sampling_strategy",
    "data.num_clips": "n_clips train_n_clips",
    "data.num_frames": "n_frames num_frm",
    "data.max_text_length": "max_length max_seq_length max_txt_len",
    "data.max_examples_per_group": "max_n_example_per_group",
    "data.workers": "n_workers dataloader_num_workers",
    "model.tokenizer": "tokenizer_dir tokenizer_name",
    "model.weights.checkpoint": "model weights ckpt ckpt_path pretrained init load_from model_name_or_path "
    "e2e_weights_path",
    "model.weights.bert": "bert_weights_path",
    "model.visual.kind": "backbone encoder visual_encoder",
    "model.visual.weights": "detectron2_weights_path",
    "objective.pool": "score_agg_func",
    "train.epochs": "max_epochs num_train_epochs n_epochs",
    "train.batch_size": "bs train_batch_size per_device_train_batch_size",
    "train.learning_rate": "base_lr init_lr",
    "train.visual_learning_rate": "cnn_learning_rate cnn_lr",
    "train.visual_weight_decay": "cnn_weight_decay",
    "train.schedule": "scheduler lr_scheduler lr_scheduler_type",
    "train.visual_schedule": "cnn_lr_decay",
    "train.milestones": "step_decay_epochs",
    "train.warmup_ratio": "warmup warmup_steps warmup_epochs",
    "train.max_grad_norm": "grad_norm clip_grad grad_clip gradient_clip_val",
    "train.gradient_accumulation_steps": "grad_accum accumulate_grad_batches accum_iter",
    "train.freeze": "freeze_cnn freeze_backbone",
    "train.precision": "fp16 bf16 fp32 amp mixed_precision",
    "train.activation_checkpointing": "gradient_checkpointing grad_checkpointing",
    "train.validate_every_steps": "valid_steps eval_steps val_check_interval eval_every",
    "train.save_every_steps": "save_steps save_freq save_every",
    "train.log_every_steps": "logging_steps log_interval log_every_n_steps print_freq",
    "train.keep_last": "save_total_limit",
    "train.trackers": "wandb use_wandb tensorboard logger report_to",
    "infer.batch_size": "val_batch_size eval_batch_size inference_batch_size per_device_eval_batch_size",
    "infer.num_clips": "inference_n_clips",
    "seed": "random_seed manual_seed",
}
"""Setting -> its other names."""


def ours(name: str) -> list[str]:
    """Return the settings that other programs call `name`."""
    return [key for key, names in _OTHER_NAMES.items() if name in names.split()]
