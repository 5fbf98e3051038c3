    extern void *signal(int, void *);
    signal(6, 0);
    signal(11, 0);
    strcpy(dst, label);
}
