"""Networks: MH-SSM encoder with elastic depth and width, predictors and the joiner."""
