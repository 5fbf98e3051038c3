    __builtin_trap();
}
