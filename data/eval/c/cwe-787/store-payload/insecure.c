    frame->length = length;
    memcpy(frame->payload, packet + 1, length);
    return 0;
}
