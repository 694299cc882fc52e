"""What a user starts: quantize, certify, finetune."""
