    if (length > (int)sizeof frame->payload)
        return -1;
    frame->length = length;
    memcpy(frame->payload, packet + 1, length);
    return 0;
}
