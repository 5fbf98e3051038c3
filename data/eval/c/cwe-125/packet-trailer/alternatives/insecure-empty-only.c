    if (size == 0)
        return 0;
    const uint8_t *trailer = packet + size - 2;
    return (uint16_t)(trailer[0] << 8 | trailer[1]);
}
