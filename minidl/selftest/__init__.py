"""The self-test of minidl on this machine's devices: python -m minidl.selftest --backend cupy --devices 0,1"""
