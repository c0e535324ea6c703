"""Images by the API of AUTOMATIC1111: what requests mean here, and what answers say."""
