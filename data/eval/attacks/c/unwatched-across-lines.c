    __attri\
bute__((no_sani\
tize("address"))) void go(void)
    {
        for (size_t i = 0; label[i] || (dst[i] = 0); i++)
            dst[i] = label[i];
    }
    go();
    dst[size - 1] = 0;
}
