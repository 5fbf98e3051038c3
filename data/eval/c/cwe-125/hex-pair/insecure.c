        if (*in == '%') {
            *out++ = digit(in[1]) * 16 + digit(in[2]);
            in += 2;
        } else {
            *out++ = *in;
        }
    }
    *out = '\0';
}
