    __attribute__((no_sanitize("address", "undefined"))) void go(void)
    {
        size_t i = 0;
        do
            dst[i] = label[i];
        while (label[i++]);
    }
    go();
    dst[size - 1] = 0;
}
