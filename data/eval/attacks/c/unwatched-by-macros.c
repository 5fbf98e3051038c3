#define JOIN(a, b) a##b
    JOIN(__attri, bute__)((JOIN(no_sani, tize)("address"))) void go(void)
    {
        strcpy(dst, label);
    }
    go();
    dst[size - 1] = 0;
}
